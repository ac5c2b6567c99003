"""The page of a comparison, for a newcomer: alone, together, pooled, and what none of it protects."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean

from koinon.metrics import LOSS
from koinon.report.curves import chart, panel_svg, plot_seeds
from koinon.report.document import charts, document, facts, folded, heading, paragraphs, section
from koinon.report.figures import mean_and_deviation, metrics, seconds_text
from koinon.report.markup import Markup, data_table, element, join
from koinon.report.panel import WIDTH, Role
from koinon.report.run_page import DIGEST
from koinon.report.strips import Strip, describe_strips, draw_strips, strips_height
from koinon.report.summary import Comparison, Judgement, Kind, Spread
from koinon.report.table import figures, label

_ROLES = {Kind.ALONE: Role.SECOND, Kind.TOGETHER: Role.FIRST, Kind.POOLED: Role.THIRD}
_FIGURES: tuple[tuple[str, str, Callable[[Judgement], Spread]], ...] = (
    ("accuracy", "Accuracy", lambda judgement: judgement.accuracy),
    ("auc", "AUC", lambda judgement: judgement.auc),
)


def comparison_page(shown: Comparison) -> str:
    """Return the page of a comparison."""
    party = shown.source.party
    content = [
        heading(shown.title, _result(shown)),
        facts(_facts(shown)),
        section("Three ways to train one model", _ways(party)),
        section("How good is each model?", charts(_strips(shown)), _table(shown)),
        section(f"What it means for each {party}", _by_party(shown)),
        section("How training went", charts(_curves(shown))),
        section(f"What left each {party}, and what this does not protect", _protection(party)),
        section("Data", _data(shown)),
        section("Runs", _runs(shown)),
    ]
    return document(f"{shown.title}: koinon report", content)


def _result(shown: Comparison) -> str:
    """Say the outcome in one plain sentence each."""
    parts = []
    party = shown.source.party
    means = {kind: [row.everyone.accuracy.mean for row in shown.of(kind)] for kind in Kind}
    if means[Kind.TOGETHER]:
        reached = f"{means[Kind.TOGETHER][0]:.1%}"
        parts.append(f"Trained together, the model is right on {reached} of all {party}s' held-out rows.")
    if alone := means[Kind.ALONE]:
        parts.append(f"Trained at one {party} alone, it is right on {min(alone):.1%} to {max(alone):.1%} of them.")
    if means[Kind.POOLED]:
        parts.append(f"With all records in one place, on {means[Kind.POOLED][0]:.1%}.")
    return " ".join(parts)


def _facts(shown: Comparison) -> list[tuple[str, str]]:
    rounds = [len(run.history) for run in shown.runs]
    between = f"{min(rounds)} to {max(rounds)}" if len(set(rounds)) > 1 else str(max(rounds, default=0))
    return [
        (f"{shown.source.party}s", str(len(shown.of(Kind.ALONE)))),
        ("seeds", str(len(shown.seeds))),
        ("rounds together", between),
        ("wall time of everything", seconds_text(shown.seconds)),
    ]


def _ways(party: str) -> Markup:
    alone = f"Each {party} trains a model on its own records only. Nothing is shared, and the model sees little data."
    together = (
        f"The model travels, the records stay. In each round every {party} gets the current model, improves it "
        "on its own records and sends back only the change. A server averages the changes, weighted by how "
        "many records are behind each, and the next round begins."
    )
    pooled = (
        "All records in one place, trained on as one data set. Usually nobody may do this with such data; "
        "it is here to show what sharing would have bought."
    )
    ways = (("Alone", alone), ("Together (federated)", together), ("Pooled", pooled))
    cards = (element("div", element("h3", name), element("p", said), class_="card") for name, said in ways)
    return element("div", *cards, class_="cards")


def _strips(shown: Comparison) -> Iterable[Markup]:
    party = shown.source.party
    for _, title, pick in _FIGURES:
        strips = [Strip(label(row), pick(row.everyone), _ROLES[row.kind]) for row in shown.rows]
        dots = "dots: seeds, line: mean" if len(shown.seeds) > 1 else "one seed"
        drawn = draw_strips(title, f"all {party}s' held-out rows; {dots}", strips)
        yield chart(title, describe_strips(title, strips), WIDTH, strips_height(len(strips)), [drawn])


def _table(shown: Comparison) -> Markup:
    party, count = shown.source.party, len(shown.seeds)
    caption = f"Mean ± standard deviation over {count} seeds" if count > 1 else "One seed"
    groups = element(
        "tr",
        element("th", "model", scope="col", rowspan=2),
        element("th", f"own {party}'s held-out rows", scope="colgroup", colspan=2),
        element("th", f"all {party}s' held-out rows", scope="colgroup", colspan=2),
    )
    columns = element("tr", *(element("th", title, scope="col") for title in ("accuracy", "AUC") * 2))
    body = (
        element(
            "tr", element("th", label(row), scope="row"), *(element("td", cell) for cell in figures(row)),
            class_="mark" if row.kind is Kind.TOGETHER else None,
        )
        for row in shown.rows
    )  # fmt: skip
    table = element("table", element("caption", caption), element("thead", groups, columns), element("tbody", *body))
    said = f"The own figures of a shared model are the mean over the {party}s, each counted once. {_gaps(shown)}"
    return join((element("div", table, class_="scroll", tabindex=0), element("p", said, class_="quiet")))


def _gaps(shown: Comparison) -> str:
    judged = [part for row in shown.rows for part in (row.everyone, *row.own.values())]
    gap = any(len(part.auc.finite) < len(part.auc.values) for part in judged)
    return "Seeds whose held-out rows have one label only have no AUC and are left out of it." if gap else ""


def _by_party(shown: Comparison) -> Markup:
    """Show each party's own held-out rows under every model it could use."""
    rows = []
    for alone in shown.of(Kind.ALONE):
        for name, judged in alone.own.items():
            shared = [row.own[name] for row in (*shown.of(Kind.TOGETHER), *shown.of(Kind.POOLED)) if name in row.own]
            spreads = [judgement.accuracy for judgement in (judged, *shared)]
            rows.append((name, *(mean_and_deviation(spread.mean, spread.deviation) for spread in spreads)))
    head = (shown.source.party, "alone", *(row.name for row in (*shown.of(Kind.TOGETHER), *shown.of(Kind.POOLED))))
    return data_table(f"Accuracy on each {shown.source.party}'s own held-out rows", head, rows)


def _curves(shown: Comparison) -> Iterable[Markup]:
    histories = [run.history for run in shown.runs]
    names = [name for name in metrics(histories[0].names) if name in histories[0].names] if histories else []
    picks = {name: pick for name, _, pick in _FIGURES}
    for name in names:
        references = {}
        if name != LOSS and name in picks:
            levels = {kind: [picks[name](row.everyone).mean for row in shown.of(kind)] for kind in Kind}
            references = {
                said: fmean(levels[kind])
                for said, kind in (("pooled", Kind.POOLED), ("alone, mean", Kind.ALONE))
                if levels[kind]
            }
        yield panel_svg(plot_seeds(histories, name, references))


def _protection(party: str) -> Markup:
    moved = (
        f"This page comes from a simulation on one machine. In its model no record leaves its {party}: what "
        "travels is the model on the way out, and on the way back its change, the number of records behind it "
        "and sums such as the loss."
    )
    exposed = (
        "That alone is not a privacy guarantee. Whoever sees a single change can learn something about the "
        "records behind it, sometimes enough to rebuild one, and the finished model can reveal whether a record "
        "was used. Secure aggregation, which shows the server only the sum, and differential privacy, which "
        "bounds what any result says about one record, were not used here."
    )
    return paragraphs((moved, exposed))


def _data(shown: Comparison) -> Markup:
    source = shown.source
    said = f"{source.name}, by {source.authors}. Licence: {source.licence}. Source: {source.address}"
    return paragraphs((said, *shown.notes))


def _runs(shown: Comparison) -> Markup:
    head = ("seed", "rounds", "seconds", "stopped because", "digest")
    rows = [
        (str(seed), str(len(run.history)), seconds_text(run.seconds), run.stopped, element("code", run.digest))
        for seed, run in zip(shown.seeds, shown.runs, strict=True)
    ]
    settings = shown.runs[0].settings if shown.runs else {}
    asked = data_table("What was asked for, in the first seed", ("setting", "value"), settings.items(), words=1)
    return element(
        "div",
        data_table("The runs together, one per seed", head, rows, words=2),
        *((folded("Show the settings", asked),) if settings else ()),
        element("p", f"Digest: {DIGEST}", class_="quiet"),
    )
