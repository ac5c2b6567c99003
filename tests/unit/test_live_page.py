"""The live page holds no data, loads nothing, runs only its own script, and writes figures as the reports do."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from koinon.core.events import RoundRecord
from koinon.report.axes import axis
from koinon.report.figures import metrics, number, seconds_text, spelt
from koinon.report.live_page import content_security_policy, live_page
from koinon.report.progress import REFUSED, REMEDY
from koinon.report.style import PALETTE

_ROOT = Path(__file__).parents[2]
_NAMES = [
    "train_loss",
    "loss",
    "loss_worst",
    "auc",
    "auc_mean",
    "test_top_5",
    "accuracy_spread",
    "a_worst",
    "a",
    "__proto__",
]


class Parsed(HTMLParser):
    """The tags of the page, its attributes, and what stands in style and script."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.inside: dict[str, str] = {"style": "", "script": ""}
        self.feed(live_page())
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in self.inside:
            self.inside[self.tags[-1]] += data


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return Parsed()


def _policy() -> dict[str, str]:
    return dict(part.split(" ", 1) for part in content_security_policy().split("; "))


@pytest.mark.parametrize("tag", ["style", "script"])
def test_the_policy_allows_the_text_between_the_tags_and_nothing_else(tag: str) -> None:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", live_page(), re.DOTALL)
    assert len(found) == 1 and len(found[0]) > 1000
    digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
    assert _policy()[f"{tag}-src"] == f"'sha256-{digest}'"


def test_the_policy_closes_every_other_way() -> None:
    policy = _policy()
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'" and policy["trusted-types"] == "'none'"
    assert not re.search(r"unsafe|\*|https?:|data:", content_security_policy())


def test_the_page_loads_nothing_and_holds_one_script_without_handlers(parsed: Parsed) -> None:
    assert parsed.tags.count("script") == parsed.tags.count("style") == parsed.tags.count("h1") == 1
    assert not {"link", "img", "iframe", "object", "embed", "base", "a"} & set(parsed.tags)
    names = {name for name, _ in parsed.attributes}
    assert not {"src", "href", "action", "srcset", "style"} & names
    assert not [name for name in names if name.startswith("on")]
    assert "url(" not in live_page() and "@import" not in live_page()
    assert set(re.findall(r"https?://[^\s<\"'`]+", live_page())) == {"http://www.w3.org/2000/svg"}
    assert "\r" not in live_page(), "a browser would hash it without"


def test_the_script_never_turns_text_into_markup_nor_keeps_the_token_longer_than_the_tab(parsed: Parsed) -> None:
    script = parsed.inside["script"]
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc|createContextual"
    assert not re.search(sinks, script)
    assert not re.search(r"localStorage|document\.cookie|indexedDB|new EventSource|XMLHttpRequest", script)
    assert set(re.findall(r"fetch\(([^,]+),", script)) == {'"v1/admin/events"', "address"}


def test_the_page_is_the_same_for_everybody_and_shares_the_colours_of_the_reports() -> None:
    assert live_page() == live_page()
    assert PALETTE in live_page()


def test_a_refusal_is_explained_in_the_words_of_the_reports() -> None:
    assert f'"{REFUSED}"' in live_page() and f'"{REMEDY}"' in live_page()


def test_every_control_has_a_name_and_news_is_spoken(parsed: Parsed) -> None:
    page = live_page()
    assert '<label for="token">' in page and 'id="token"' in page
    assert ("role", "status") in parsed.attributes and ("role", "alert") in parsed.attributes
    assert ("lang", "en") in parsed.attributes
    ids = [value for name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'by\("([^"]+)"\)', page)) <= set(ids)


def test_the_wheel_holds_the_files_of_the_page(tmp_path: Path) -> None:
    builder = shutil.which("hatchling", path=Path(sys.executable).parent)
    if builder is None:
        pytest.skip("hatchling builds the wheel; pip install hatchling")
    subprocess.run(
        [builder, "build", "-t", "wheel", "-d", str(tmp_path)], cwd=_ROOT, check=True, capture_output=True, timeout=120
    )
    held = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    live = _ROOT / "src" / "koinon" / "report" / "live"
    assert {f"koinon/report/live/{file.name}" for file in live.iterdir()} <= set(held)


def _in_node(expression: str) -> object:
    """Return the value of an expression over the page's own functions for figures and axes."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("the page's functions are run by Node, which is not installed")
    live = _ROOT / "src" / "koinon" / "report" / "live"
    source = "".join((live / name).read_text(encoding="utf-8") for name in ("figures.js", "chart.js"))
    text = f"{source}\nconsole.log(JSON.stringify({expression}));"
    done = subprocess.run([node, "-"], input=text, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_figures_are_written_as_in_the_reports() -> None:
    powers = [digits * 10.0**power for power in range(-12, 13) for digits in (1, 1.5, 4.99951, 9.9999)]
    values = [0.0, *powers, *(-value for value in powers)]
    assert _in_node(f"{json.dumps(values)}.map(number)") == [number(value) for value in values]


def test_times_are_written_as_in_the_reports() -> None:
    values = [0.0042, 0.5, 1.0, 1.234, 59.4, 60.0, 75.0, 3599.0, 7260.0, 100_000.0]
    assert _in_node(f"{json.dumps(values)}.map(seconds)") == [seconds_text(value) for value in values]


def test_names_are_spelt_and_gathered_as_in_the_reports() -> None:
    names = json.dumps(_NAMES)
    assert _in_node(f"{names}.map(spelt)") == [spelt(name) for name in _NAMES]
    assert _in_node(f"metricsOf({names})") == list(metrics(_NAMES))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("values", [[0.1, 0.9], [1.0, 500.0], [3.0], [0.0, 0.0], [-2e6, 7e6], [1.0, 1.00001], []])
def test_axes_are_those_of_the_reports(values: list[float], whole: bool) -> None:
    drawn = axis(values, 40, 400, count=4, whole=whole)
    expression = f"(() => {{ const a = axis({json.dumps(values)}, 40, 400, 4, {json.dumps(whole)});"
    found = _in_node(f"{expression} return [a.ticks, a.ticks.map(a.place), a.ticks.map(a.label)]; }})()")
    assert isinstance(found, list)
    assert found[0] == pytest.approx(drawn.ticks)
    assert found[1] == pytest.approx([drawn.place(tick) for tick in drawn.ticks])
    assert [float(label) for label in found[2]] == [float(drawn.label(tick)) for tick in drawn.ticks]


def test_a_long_line_keeps_its_ends_its_peaks_and_four_hundred_points() -> None:
    points = [[i, math.sin(i / 50) + (5 if i == 7777 else 0)] for i in range(20_000)]
    kept = _in_node(f"thin({json.dumps(points)})")
    assert isinstance(kept, list) and len(kept) <= 400
    assert kept[0] == points[0] and kept[-1] == points[-1] and points[7777] in kept
    assert kept == sorted(kept)


def test_a_figure_that_is_not_finite_reaches_the_page_as_nothing() -> None:
    from koinon.fleet.service.rounds import Rounds

    record = RoundRecord(1, 2, {}, {"loss": math.inf, "auc": math.nan, "accuracy": 0.5}, 0.1)
    (row,) = json.loads(json.dumps(Rounds([record]).shown(), allow_nan=False))
    assert (row["loss"], row["auc"], row["accuracy"], row["round"]) == (None, None, 0.5, 1)
