"""The page of one run: why it stopped, its curves, its clients, its settings, every round."""

from __future__ import annotations

from koinon.report.curves import panel_svg, plot
from koinon.report.document import charts, document, facts, folded, heading, section
from koinon.report.figures import figure_names, headline, number, seconds_text, spelt
from koinon.report.history import History
from koinon.report.markup import Markup, data_table, element
from koinon.report.progress import REFUSED, REMEDY, STAGES
from koinon.report.summary import RunSummary

_ROUNDS = 500  # in the table of a page
_CLIENTS = 200
DIGEST = (
    "A SHA-256 over the final parameters. The same seed, data, settings, engine and library versions "
    "on the same kind of machine end with the same one."
)


def run_page(run: RunSummary) -> str:
    """Return the page of one run."""
    return document(f"{run.title}: koinon report", _content(run))


def _ending(run: RunSummary) -> str:
    rounds = "1 round" if len(run.history) == 1 else f"{len(run.history)} rounds"
    return f"{rounds} done. {run.stopped[:1].upper()}{run.stopped[1:]}."


def _content(run: RunSummary) -> list[Markup]:
    parts = [heading(run.title, _ending(run)), facts(_facts(run))]
    if run.history.names:
        parts.append(section("Curves", charts(map(panel_svg, plot(run.history).panels))))
    if run.clients:
        parts.append(section("Clients in the last round", _clients(run)))
    if refusals := _refusals(run.history):
        parts.append(section("Refused updates", *refusals))
    if voids := _without_result(run.history):
        parts.append(section("Rounds without a result", voids))
    if run.privacy:
        parts.append(section("Privacy", *_privacy(run)))
    if run.settings:
        parts.append(
            section("Settings", data_table("What was asked for", ("setting", "value"), run.settings.items(), words=1))
        )
    parts.append(section("Every round", _rounds(run.history)))
    return [*parts, element("footer", element("p", "Digest ", element("code", run.digest), element("br"), DIGEST))]


def _facts(run: RunSummary) -> list[tuple[str, str]]:
    last = run.history[-1].figures if run.history else {}
    figures = [(spelt(name), number(value)) for name, value in headline(last)]
    return [("rounds", str(len(run.history))), *figures, ("wall time", seconds_text(run.seconds))]


def _clients(run: RunSummary) -> Markup:
    shown = sorted(run.clients, key=lambda client: not client.refused)[:_CLIENTS]  # a stable sort: refused ones first
    names = figure_names(client.figures for client in shown)
    refused = ("refused for",) if any(client.refused for client in shown) else ()
    rows = [
        (
            client.name,
            str(client.examples),
            *(number(client.figures.get(name)) for name in names),
            *(", ".join(client.refused) for _ in refused),
        )
        for client in shown
    ]
    head = ("client", "examples", *(spelt(name) for name in names), *refused)
    caption = "Each client's own figures, on its own held-out examples"
    if len(run.clients) > len(shown):
        caption += f"; {len(shown)} of {len(run.clients)} clients"
    return data_table(caption, head, rows, words=len(refused))


def _refusals(history: History) -> list[Markup]:
    """Say whose updates were left out, and when."""
    rounds: dict[str, list[int]] = {}
    leaves: dict[str, dict[str, None]] = {}  # in order, each once
    for record in history:
        for name, bad in record.refused.items():
            rounds.setdefault(name, []).append(record.round)
            leaves.setdefault(name, {}).update(dict.fromkeys(bad))
    if not rounds:
        return []
    rows = [(name, str(len(when)), _ranges(when), ", ".join(leaves[name])) for name, when in rounds.items()]
    return [
        element("p", f"A client is left out of a round in which it sends {REFUSED}. {REMEDY}"),
        data_table("Rounds without a client's update", ("client", "rounds", "which", "for"), rows, words=2),
    ]


def _without_result(history: History) -> Markup | None:
    """Say what came to nothing, when, and why."""
    rounds: dict[tuple[str, str], list[int]] = {}
    for record in history:
        for stage, why in record.void.items():
            rounds.setdefault((stage, why), []).append(record.round)
    rows = [(STAGES[stage], _ranges(when), why) for (stage, why), when in rounds.items()]
    return data_table("What came to nothing", ("no", "in rounds", "because"), rows, words=2) if rows else None


def _rounds(history: History) -> Markup:
    left_out = len(history) - _ROUNDS
    caption = (
        f"The last {_ROUNDS} rounds; {left_out} before them are in the run's history" if left_out > 0 else "Rounds"
    )
    return folded("Show the table of rounds", element("div", history[-_ROUNDS:].table(caption), class_="tall"))


def _privacy(run: RunSummary) -> list[Markup]:
    """Return the claim, its conditions, and what is in the ledger it was counted from."""
    claim, *conditions = run.privacy
    parts = [
        element("p", f"{claim[:1].upper()}{claim[1:]}."),
        element("ul", *(element("li", line) for line in conditions)),
    ]
    if run.ledger:
        head = ("releases", "noise over what one unit can move", "sampling rate that is counted")
        parts.append(data_table("What the ledger holds, of all runs about these data", head, run.ledger))
    return parts


def _ranges(rounds: list[int]) -> str:
    """Return whole numbers with runs of neighbours joined: ``3 to 5, 9``."""
    runs: list[list[int]] = []
    for one in rounds:
        if runs and runs[-1][-1] == one - 1:
            runs[-1][1:] = [one]
        else:
            runs.append([one])
    return ", ".join(" to ".join(map(str, run)) for run in runs)
