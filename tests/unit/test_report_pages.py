"""A page needs no network, runs nothing, escapes every name and says what a newcomer has to know."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import comparison, history, record, run_summary

from koinon.errors import ConfigurationError, StoreError
from koinon.report.history import History
from koinon.report.page import page, write_page
from koinon.report.run_page import _ranges
from koinon.report.summary import ClientRow, Comparison, RunSummary, Spread

_VOID = {"meta", "br"}
hostile = st.one_of(
    st.text(min_size=1, max_size=30),
    st.sampled_from(["<script>alert(1)</script>", '"><img src=x onerror=y>', "</style><b>", "a&b;'", "\x00\ud800]]>"]),
)


class Parsed(HTMLParser):
    """The tags of a page in order, its attributes, its words; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.mark.parametrize("shown", [run_summary(), comparison()], ids=["run", "comparison"])
def test_a_page_loads_nothing_and_runs_nothing(shown: RunSummary | Comparison) -> None:
    text = page(shown)
    parsed = Parsed(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"} & set(parsed.tags)
    names = {name for _, name, _ in parsed.attributes}
    assert not {"src", "href", "xlink:href", "action", "background", "srcset"} & names
    assert not [name for name in names if name.startswith("on")]
    assert "url(" not in text and "@import" not in text
    addresses = set(re.findall(r"https?://[^\s<\"']+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "https://example.org/data"}
    assert "default-src 'none'" in {value for _, name, value in parsed.attributes if name == "content"}.__repr__()


@pytest.mark.parametrize("shown", [run_summary(), comparison()], ids=["run", "comparison"])
def test_a_page_can_be_read_without_seeing_it(shown: RunSummary | Comparison) -> None:
    parsed = Parsed(page(shown))
    assert ("html", "lang", "en") in parsed.attributes
    assert parsed.tags.count("h1") == 1
    assert parsed.tags.count("caption") == parsed.tags.count("table") > 0
    scopes = [value for tag, name, value in parsed.attributes if (tag, name) == ("th", "scope")]
    assert len(scopes) == parsed.tags.count("th")
    charts = [value for tag, name, value in parsed.attributes if (tag, name) == ("svg", "role")]
    assert charts == ["img"] * parsed.tags.count("svg")
    assert parsed.tags.count("desc") == parsed.tags.count("svg")


@settings(max_examples=40)
@given(hostile)
def test_no_name_becomes_markup(name: str) -> None:
    for make, harmless in ((run_summary, _RUN), (comparison, _COMPARISON)):
        parsed = Parsed(page(make(name)))
        assert parsed.tags == harmless.tags
        assert [(tag, attribute) for tag, attribute, _ in parsed.attributes] == [
            (tag, attribute) for tag, attribute, _ in harmless.attributes
        ]


_RUN, _COMPARISON = Parsed(page(run_summary("plain"))), Parsed(page(comparison("plain")))


def test_hostile_names_are_shown_as_they_are() -> None:
    assert "<script>alert(1)</script>" in Parsed(page(run_summary("<script>alert(1)</script>"))).text


def test_a_run_page_says_why_it_stopped_who_was_refused_and_what_was_asked() -> None:
    text = Parsed(page(run_summary())).text
    for wanted in (
        "6 rounds done. Converged: ",
        "params/dense/kernel",
        "3 to 4",
        "Lower the learning rate",
        "9f2c9f2c",
    ):
        assert wanted in text, wanted


def test_an_empty_run_has_a_page_too() -> None:
    empty = RunSummary(title="Nothing", history=History(), stopped="interrupted", digest="none yet", seconds=0.0)
    assert "0 rounds done. Interrupted." in Parsed(page(empty)).text


def test_long_runs_and_large_populations_keep_a_page_small() -> None:
    clients = tuple(ClientRow(name=f"client-{i}", examples=1) for i in range(5000))
    many = RunSummary(
        title="Many", history=history(3000), stopped="rounds", digest="0", seconds=1.0,
        clients=(*clients, ClientRow(name="The refused one", examples=0, refused=("params/w",))),
    )  # fmt: skip
    text = page(many)
    assert len(text) < 1_000_000
    assert "200 of 5001 clients" in text
    assert "The last 500 rounds; 2500 before them" in text
    assert text.index("The refused one") < text.index("client-0"), "refused clients come first"


def test_the_comparison_says_what_is_shared_and_what_is_not_protected() -> None:
    text = Parsed(page(comparison())).text
    for wanted in (
        "Alone", "Together (federated)", "Pooled", "no record leaves its hospital", "not a privacy guarantee",
        "Secure aggregation", "differential privacy", "CC BY 4.0", "https://example.org/data",
        "over 3 seeds", "have no AUC",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_one_seed_claims_no_spread() -> None:
    text = page(comparison(seeds=1))
    assert "±" not in re.sub(r"shaded: clients&#x27; mean ±", "", text)
    assert "One seed" in text


def test_a_mean_leaves_missing_figures_out_and_needs_two_for_a_deviation() -> None:
    nan = float("nan")
    assert Spread((nan, 0.5, 0.7)).mean == pytest.approx(0.6)
    assert Spread((nan, 0.5, 0.7)).deviation == pytest.approx(0.1414213562)
    assert str(Spread((0.5, nan)).deviation) == str(Spread((nan,)).mean) == "nan"


def test_own_rows_of_a_shared_model_are_the_mean_over_hospitals_seed_by_seed() -> None:
    together = comparison().rows[2]
    assert together.at_home().accuracy.values == pytest.approx((0.85, 0.86, 0.87))
    assert together.at_home().auc.values == pytest.approx((0.8, 0.86, 0.87)), "a missing AUC is left out of its seed"


def test_a_comparison_needs_every_figure_for_every_seed() -> None:
    whole = comparison()
    with pytest.raises(ConfigurationError, match="over 2 seeds"):
        Comparison(title="", rows=whole.rows, seeds=(0, 1), runs=whole.runs, source=whole.source, seconds=0.0)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_page(tmp_path / "a" / "report.html", run_summary())
    second = write_page(tmp_path / "b" / "report.html", run_summary())
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StoreError, match="Name a folder"):
        write_page(tmp_path / "report.html", run_summary())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@given(st.sets(st.integers(1, 40)))
def test_joined_rounds_are_the_rounds(rounds: set[int]) -> None:
    back: set[int] = set()
    for part in filter(None, _ranges(sorted(rounds)).split(", ")):
        ends = [int(end) for end in part.split(" to ")]
        back |= set(range(ends[0], ends[-1] + 1))
    assert back == rounds


def test_a_round_without_figures_has_a_row() -> None:
    assert "<td>4</td>" in History([record(1)]).table("One")
