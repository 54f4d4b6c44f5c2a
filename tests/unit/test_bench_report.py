"""What `make bench` makes of its figures: goals, the page, the files. Nothing is measured here."""

from __future__ import annotations

import doctest
import itertools
import json
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import (
    bare,
    corpus,
    encoding,
    environment,
    fields,
    goals,
    judging,
    machine,
    processes,
    report,
    suite,
    timing,
)
from benchmarks.bench import Bench, benchmark
from benchmarks.goals import Goal, Result, Target
from benchmarks.progress import Progress
from searchapp.ingest.documents import Document

ROWS = (
    "encode lines",
    "encode abstracts",
    "encode against the machine",
    "encode one query",
    "cold process to the first hit",
    "text to searchable",
    "load vectors",
    "query",
    "throughput",
    "many queries",
    "exact",
    "limit",
    "ingest memory",
    "words",
    "hybrid",
    "replace a document",
    "ingest with words",
    "load vectors with words",
    "similar",
    "examples",
    "diversity",
    "groups",
    "context",
    "filter equality",
    "filter section",
    "filter range",
    "facets",
    "embed",
    "search from SQL",
    "source",
)
POINTS = {
    "by rows": [
        {"rows": 100, "load, s": 0.1, "index, s": 0.2, "query p50, ms": 1.0, "size, MB": 0.5},
        {"rows": 1000, "load, s": 1.0, "index, s": 2.0, "query p50, ms": 1.5, "size, MB": 5.0},
    ],
    "by ef_search": [{"ef_search": 20, "recall@10": 0.9, "p50, ms": 1.0}],
}


def record(**details: Any) -> dict[str, Any]:
    return {
        "machine": {"cpu": "A processor", "cores": 2, "flags": ["avx2"], "sgemm, GFLOP/s": 171.23456789},
        "versions": {"python": "3.11.7"},
        "settings": {"quick": False, "corpus": "lines", "documents": 60_000, "server": {"shared_buffers": "1GB"}},
        "goals": [
            {"goal": "query", "measured": 1.1, "target": "<= 1.15", "unit": "x", "met": True, "reason": None},
            {"goal": "many", "measured": None, "target": "<= 1", "unit": "x", "met": False, "reason": "a | b"},
        ],
        "details": details,
    }


@pytest.mark.parametrize("module", [bare, corpus, encoding, goals, processes, report, timing])
def test_the_examples_in_docstrings_are_true(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def test_every_row_has_its_goals_and_no_other_row_has() -> None:
    targets = [target for each in suite.BENCHMARKS for target in each.targets]
    assert {target.goal.partition(":")[0] for target in targets} == set(ROWS)
    assert len({target.goal for target in targets}) == len(targets)
    assert all(target.target == "none" or goals.is_met(1.0, target.target) in (True, False) for target in targets)


def test_a_target_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="about 5"):
        goals.is_met(1.0, "about 5")


def test_a_figure_at_its_bound_meets_the_goal_and_none_meets_nothing() -> None:
    result = Result({"a": 1.15, "b": 0.9})
    assert goals.judge(Target("a", "<= 1.15", "x"), result) == Goal("a", 1.15, "<= 1.15", "x", True)
    assert not goals.judge(Target("b", ">= 0.97", ""), result).met
    assert goals.failed(Target("a", "none", "s"), "why") == Goal("a", None, "none", "s", False, "why")


def test_a_benchmark_that_fails_leaves_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    def broken(bench: Bench) -> Result:
        """What is broken."""
        raise OSError(f"{bench.home}/data is full\nand more")

    chosen = (
        benchmark("broken", broken, {"one": (">= 1", "x"), "two": ("none", "s")}),
        benchmark("sound", lambda _: Result({"three": 3.0}, {"texts": 7}), {"three": (">= 1", "x")}),
    )
    bench: Any = type("Home", (), {"home": tmp_path})()
    found, details = suite.measure(bench, chosen, Progress())
    assert [(goal.goal, goal.measured, goal.met) for goal in found] == [
        ("one", None, False),
        ("two", None, False),
        ("three", 3.0, True),
    ]
    assert found[0].reason == "OSError: <home>/data is full"
    assert details == {
        "broken": {"about": "What is broken.", "failed": found[0].reason},
        "sound": {"about": "", "texts": 7},
    }


def test_a_reason_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    words = f"no {tmp_path}/x, {environment.ROOT}/y, {Path.home()}/z"
    assert suite.without_paths(words, tmp_path) == "no <home>/x, ./y, ~/z"


def test_sides_take_turns() -> None:
    order: list[str] = []
    figures = itertools.count(1.0)

    def side(name: str) -> timing.Side:
        return lambda: order.append(name) or next(figures)  # type: ignore[func-returns-value]

    rounds = timing.take_turns({"a": side("a"), "b": side("b")}, 2, lambda _: None)
    assert order == ["a", "b", "a", "b"]
    assert rounds.figures == {"a": [1.0, 3.0], "b": [2.0, 4.0]}
    assert rounds.ratio("a", "b") == (1 / 2 + 3 / 4) / 2
    assert rounds.details("ms", 1e3)["a, ms"] == 2000.0


def test_a_random_field_keeps_the_share_that_it_says() -> None:
    documents = [Document(str(number), "x" * number, None, {"section": "libs"}) for number in range(1000)]
    labelled = [document.metadata for document in fields.label(documents)]
    assert labelled == [document.metadata for document in fields.label(documents)]
    assert documents[7].metadata == {"section": "libs"}
    for name, values in fields.RANDOM_FIELDS.items():
        assert sum(metadata[name] == 1 for metadata in labelled) == 1000 // values
    assert all(metadata["length"] == metadata["size"] == place for place, metadata in enumerate(labelled))


def test_an_answer_is_judged_by_what_may_be_found() -> None:
    vectors = np.eye(4, dtype=np.float32)
    bench: Any = SimpleNamespace(
        corpus=SimpleNamespace(vectors=vectors), rows=4, places={str(place): place for place in range(4)}
    )
    rows = np.array([0, 2])
    query = np.array([[3, 2, 1, 0]], np.float32)

    def judged(*keys: str, limit: int) -> judging.Judged:
        return judging.judge(bench, lambda _: keys, query, limit=limit, rows=rows)

    assert judged("0", "2", limit=2) == judging.Judged(full=1, recall=1)
    assert judged("0", "2", limit=10) == judging.Judged(full=1, recall=1)  # no more can be found
    assert judged("0", "1", limit=2) == judging.Judged(full=0, recall=0.5)  # the filter leaves 1 out
    assert judged("0", "0", limit=2) == judging.Judged(full=0, recall=0.5)
    assert judged("2", limit=1) == judging.Judged(full=1, recall=0)
    assert judged(limit=1) == judging.Judged(full=0, recall=0)


def test_the_files_are_written(tmp_path: Path) -> None:
    figures = record(
        query={"about": "One query.", "queries": 200, "searchapp, ms": 1.23456789, "rounds, ms": [1.0]}, curves=POINTS
    )
    report.write(figures, tmp_path / "build" / "bench.json", tmp_path / "page")
    written = json.loads((tmp_path / "build" / "bench.json").read_text())
    assert written["goals"] == figures["goals"]
    assert written["machine"]["sgemm, GFLOP/s"] == 171.235
    page = (tmp_path / "page" / "README.md").read_text()
    assert "| query | 1.1 x | <= 1.15 | yes |" in page
    assert r"| many | a \| b | <= 1 | no |" in page
    assert "### query\n\nOne query.\n\n- queries: 200\n- searchapp, ms: 1.235\n" in page
    assert "rounds, ms" not in page
    for plot in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (tmp_path / "page" / plot).read_text().startswith("<?xml")


def test_the_page_is_written_where_a_curve_failed(tmp_path: Path) -> None:
    report.write(record(curves={"failed": "no server"}), tmp_path / "bench.json", tmp_path)
    assert "no server" in (tmp_path / "README.md").read_text()


def test_a_product_of_matrices_is_counted() -> None:
    assert machine.sgemm_rate(2 * machine.SIZE**3 / 1e9) == pytest.approx(1)


def test_a_row_of_another_corpus_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "given.jsonl"
    path.write_text('{"key": "a", "title": "Red", "text": "shoes", "size": 42}\n{"key": "b", "text": "hat"}\n')
    documents = corpus.read_given(path)
    assert [(each.key, each.text, each.title, each.metadata) for each in documents] == [
        ("a", "Red shoes", None, {"size": 42}),
        ("b", "hat", None, {}),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"key": "a", "text": "b"}\n{"key": "a", "text": "c"}\n', "twice"),
        ('{"key": "a"}\n', "no row has a field 'text'"),
        ('{"key": "a", "text": "b"}\n{"key": "b"}\n', "line 2: no field 'text'"),
        ('{"key": "a", "text": "b"}\n', "1 documents; at least 2,000"),
    ],
)
def test_a_corpus_that_cannot_be_measured_on_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "given.jsonl"
    path.write_text(rows)
    with pytest.raises(corpus.CorpusUnusable, match=message):
        corpus.read(path, None, 100, lambda _: pytest.fail("encoded"), lambda _: None)
