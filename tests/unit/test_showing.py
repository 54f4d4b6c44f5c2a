"""How hits look: in a terminal, in a notebook, as a DataFrame."""

from __future__ import annotations

import doctest
import locale
import re
import sys
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest
from rich.cells import cell_len

from searchapp import errors
from searchapp.cli import output
from searchapp.search import hits_html, showing
from searchapp.search.hits import Hit, Hits, Took

SCRIPT = '<script>alert("1")</script>&\''
FONTS = Hit(
    "fonts",
    "Fonts in plots",
    "A font that\nis missing",
    0.8,
    0.2,
    {"section": "fonts", "year": 2020},
    0.8,
    highlights=((2, 6),),
)
HALF = Hit("half", None, "日本語 🎉 עברית", 0.4, 0.6, {"nested": {"k": [None, "\x1b[2J"]}})
WORSE = Hit("worse", "worse", "Nothing", -0.1, 1.1, {})


def found(*hits: Hit) -> Hits:
    return Hits(hits, mode="vector", exact=True, complete=True, took_ms=Took(1.0, 2.0))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(locale, "getencoding", lambda: "utf-8")


def printed(capsys: pytest.CaptureFixture[str], *hits: Hit) -> list[str]:
    output.print_hits(found(*hits))
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).split("\n")


@pytest.mark.parametrize("module", [output, showing])
def test_the_examples_are_right(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("scores", "shares"),
    [
        ([], []),
        ([0.8, 0.4, 0.0, -0.1], [1.0, 0.5, 0.0, 0.0]),
        ([0.0], [0.0]),
        ([-0.2, -0.4], [0.0, 0.0]),
        ([24.0, 6.0], [1, 0.25]),
    ],
)
def test_bars_are_relative_to_the_best_hit(scores: list[float], shares: list[float]) -> None:
    assert showing.shares(Hit("a", None, "", score, None, {}) for score in scores) == shares


def test_every_bar_is_of_one_width_and_grows_with_the_share() -> None:
    for encoding in ("utf-8", "cp437", "ascii"):
        bars = [output.score_bar(percent / 100, encoding) for percent in range(101)]
        assert {len(bar) for bar in bars} == {output.BAR_WIDTH}
        filled = [len(bar.rstrip()) for bar in bars]
        assert (filled[0], filled[-1], filled) == (0, output.BAR_WIDTH, sorted(filled))
        assert encoding == "utf-8" or set("".join(bars)) == {"#", " "}


@pytest.mark.usefixtures("terminal")
def test_a_terminal_gets_bars_and_metadata(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, FONTS, HALF, WORSE) == [
        " 1. ██████  0.800  Fonts in plots  fonts",
        "                   A font that is missing",
        "                   section: fonts · year: 2020",
        " 2. ███     0.400  half",
        "                   日本語 🎉 עברית",
        '                   nested: {"k": [null, "\\u001b[2J"]}',
        " 3.        -0.100  worse",
        "                   Nothing",
        "3 hits (exact; encode 1.0 ms, database 2.0 ms)",
        "",
    ]


@pytest.mark.usefixtures("terminal")
def test_metadata_is_one_line_cut_to_the_width(capsys: pytest.CaptureFixture[str]) -> None:
    keys = FONTS._replace(metadata={f"\x9b鍵 {number}\n": "\x07🎉 v" for number in range(100)})
    title = FONTS._replace(title="題" * 500)
    lines = printed(capsys, keys, title)
    assert max(map(cell_len, lines)) <= 60
    assert len(lines) == 2 * 3 + 2
    assert lines[2].startswith("                  \ufffd鍵 0 : \ufffd🎉 v · \ufffd鍵 1")
    assert lines[2].endswith("…")


def test_a_pipe_gets_no_bar_and_metadata_of_a_bounded_length(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, FONTS._replace(metadata={"note": "x" * 10_000}))
    assert lines[0] == " 1. 0.800  Fonts in plots  fonts"
    assert lines[2].startswith("           note: xxx")
    assert lines[2].endswith("x ...")
    assert len(lines[2]) == 11 + output.PASSAGE_LENGTH


@pytest.mark.parametrize("gap", [" ", "語"])
def test_an_excerpt_has_the_first_word_of_the_query(gap: str) -> None:
    passage = gap.join(["x"] * 300) + "  needle " + gap.join(["y"] * 300)
    begin = passage.index("needle")
    pieces = showing.excerpt(Hit("a", None, passage, 1, 0, {}, highlights=((begin, begin + 6),)), 60)
    text = "".join(piece for piece, _ in pieces)
    assert [piece for piece, found in pieces if found] == ["needle"]
    assert text.startswith("...")
    assert text.endswith(" ...")
    assert 50 < len(text) < 70


class Page(HTMLParser):
    """The tags and texts of a page, and whether every tag is closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.marked: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attrs} <= {"style", "dir"}
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data}|"
        if self.open[-1] == "mark":
            self.marked.append(data)


def test_a_notebook_gets_a_table() -> None:
    page = Page(found(FONTS, HALF, WORSE)._repr_html_())
    assert page.text == (
        "1|0.800|Fonts in plots| |fonts|A |font| that is missing|section: fonts · year: 2020|"
        '2|0.400|half| |日本語 🎉 עברית|nested: {"k": [null, "\\u001b[2J"]}|'
        "3|-0.100|worse| |Nothing|3 hits (exact; encode 1.0 ms, database 2.0 ms)|"
    )
    assert page.marked == ["font"]
    widths = re.findall(r"width:([0-9.]+)%", hits_html.table(found(FONTS, HALF, WORSE)))
    assert widths == ["100.0", "50.0", "0.0"]


def test_a_notebook_executes_nothing_of_a_document() -> None:
    hit = Hit(SCRIPT, f"{SCRIPT}!", SCRIPT, 1.0, 0.0, {SCRIPT: SCRIPT, "deep": [SCRIPT]}, highlights=((0, 8),))
    page = Page(found(hit)._repr_html_())
    assert page.tags == {"table", "tbody", "tr", "td", "div", "b", "bdi", "mark"}
    assert page.marked == ["<script>"]
    assert page.text.count(SCRIPT) == 4
    assert page.text.count("alert") == 6


def test_a_notebook_gets_a_line_where_there_are_no_hits() -> None:
    assert Page(found()._repr_html_()).text == "no hits (exact; encode 1.0 ms, database 2.0 ms)|"


def test_hits_become_a_frame() -> None:
    frame = found(FONTS, HALF).to_pandas()
    assert list(frame.columns) == [name for name in Hit._fields if name not in {"highlights", "passages"}]
    assert list(frame.index) == [0, 1]
    assert list(frame["key"]) == ["fonts", "half"]
    assert frame["metadata"][1] is HALF.metadata
    assert list(frame["score"]) == [0.8, 0.4]
    assert frame["vector_score"][0] == 0.8
    assert pd.isna(frame["vector_score"][1])
    assert pd.isna(frame["title"][1])


@pytest.mark.parametrize("hits", [(), (HALF,)])
def test_a_frame_has_the_same_columns_and_numbers_whatever_was_found(hits: tuple[Hit, ...]) -> None:
    frame, other = found(*hits).to_pandas(), found(FONTS).to_pandas()
    assert len(frame) == len(hits)
    assert list(frame.columns) == list(other.columns)
    numbers = [name for name in frame.columns if name.endswith("score") or name == "distance"]
    assert {str(frame[name].dtype) for name in numbers} == {"float64"}


def test_a_missing_pandas_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(errors.PackageMissing, match=r"^pandas is not installed: pip install pandas$"):
        found(FONTS).to_pandas()
