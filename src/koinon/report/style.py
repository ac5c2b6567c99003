"""Colours and rules of the pages and charts, light and dark.

The four series colours differ in lightness and along blue to yellow, so they stay apart for colour-blind
readers (after Okabe and Ito, "Color Universal Design", 2008) and keep a contrast of 4.5 to the surface in
either scheme; lines differ in their dashes too.
"""

from __future__ import annotations

from collections.abc import Mapping

_LIGHT = {
    "surface": "#ffffff",
    "ground": "#f5f5f2",
    "text": "#1c1d1f",
    "muted": "#5a5d63",
    "grid": "#dddedb",
    "first": "#0b61a4",
    "second": "#a8480a",
    "third": "#00735a",
    "fourth": "#86439a",
    "mark": "#eef4fa",
}
_DARK = {
    "surface": "#191b1f",
    "ground": "#101114",
    "text": "#ececea",
    "muted": "#a9adb4",
    "grid": "#33363c",
    "first": "#7ab8f0",
    "second": "#f2a265",
    "third": "#5cc9a7",
    "fourth": "#d3a0e0",
    "mark": "#1d2a38",
}


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


PALETTE = (
    f".koinon{{color-scheme:light dark;{_variables(_LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{.koinon{{{_variables(_DARK)}}}}}"
)
"""Colours as variables of everything inside an element of class ``koinon``."""

CHART = (
    ".koinon.chart{max-width:100%;height:auto;font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    + "".join(
        f".chart .{role}{{stroke:var(--{colour})}}.chart text.{role},.chart circle.{role},.chart .band.{role}"
        f"{{fill:var(--{colour})}}.chart text.{role}{{stroke:none;font-weight:600}}"
        for role, colour in (*((name, name) for name in ("first", "second", "third", "fourth")), ("reference", "muted"))
    )
    + ".chart text{font-size:12px;fill:var(--muted)}"
    ".chart .title{font-size:15px;font-weight:600;fill:var(--text)}"
    ".chart .surface{fill:var(--surface)}.chart .grid{stroke:var(--grid);stroke-width:1}"
    ".chart .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".chart .thin{stroke-width:1.5}.chart .faint{opacity:.35;stroke-width:1.2}"
    ".chart .band{stroke:none;opacity:.14}.chart .halo{stroke:var(--surface);stroke-width:1.5}"
)
"""Rules of a chart, which carries them with it: it may be saved or shown on its own."""

PAGE = """
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);line-height:1.55;
 font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-size:16px}
main{max-width:62rem;margin:0 auto;padding:2rem 1rem 4rem}
h1{font-size:1.75rem;line-height:1.2;margin:.5rem 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.5rem 0 .75rem}
h3{font-size:1rem;margin:0 0 .25rem}
p{max-width:44rem;margin:.5rem 0;overflow-wrap:anywhere}
.lead{font-size:1.1rem}
.quiet,caption,footer{color:var(--muted)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1.25rem 0 0;padding:0}
.facts div,.card,.scroll{background:var(--surface);border:1px solid var(--grid);border-radius:.5rem}
.facts div{padding:.6rem .8rem}
.facts dt{font-size:.8rem;color:var(--muted)}
.facts dd{margin:0;font-weight:600;font-size:1.15rem;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(16rem,100%),1fr));gap:.75rem}
.card{padding:.9rem 1rem}
.card p{margin:.25rem 0 0}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr));gap:.75rem}
.charts figure{margin:0}
.charts svg{display:block;width:100%;border:1px solid var(--grid);border-radius:.5rem}
.scroll{overflow-x:auto}
.charts+.scroll,p+.scroll,.scroll+p{margin-top:.75rem}
.tall{max-height:32rem;overflow-y:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.6rem .8rem;font-size:.85rem}
td{white-space:nowrap}
thead th,th[scope=row]{white-space:normal}
th[scope=row]{min-width:7rem;overflow-wrap:anywhere}
th,td{padding:.4rem .8rem;text-align:right;border-top:1px solid var(--grid)}
th[scope=row],thead tr:first-child th:first-child{text-align:left}
th[scope=row]{font-weight:500}
thead th{font-weight:600;color:var(--muted);vertical-align:bottom}
td.words,th.words{text-align:left;white-space:normal;min-width:12rem;overflow-wrap:anywhere}
th[scope=colgroup]{text-align:center}
tr.mark th,tr.mark td{background:var(--mark);font-weight:600}
details{margin:.75rem 0}
summary{cursor:pointer;padding:.25rem 0}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.85em;overflow-wrap:anywhere}
footer{margin-top:3rem;font-size:.85rem}
@media (max-width:32rem){th,td,caption{padding:.35rem .5rem}table{font-size:.85rem}}
@media print{body{background:none}.tall{max-height:none}}
"""
