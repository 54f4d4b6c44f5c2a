"""From a plan to words, without a database."""

from __future__ import annotations

import dataclasses
import doctest
from typing import Any

import pytest

from searchapp.fields import Field
from searchapp.search import explanation, filters, trial
from searchapp.search.explaining import Reading, advise, read_plan
from searchapp.search.explanation import EXACT, FILTER, FIRST, WIDER, Explanation, Times
from searchapp.search.request import VECTOR, Request, request
from searchapp.spaces import Chunking, Space

SPACE = Space(
    id=7,
    collection_id=3,
    collection="things",
    model="model",
    revision="",
    dimensions=4,
    chunking=Chunking(0),
    indexed=True,
    ef_search=100,
    chunks_per_document=1.0,
    chunks=60_000,
    fields=(),
    language=None,
    words_complete=True,
    vector_schema="public",
    vector_oid=1,
)
SHORT = Reading(EXACT, None, passages=60_000, documents=0, documents_tried=0, fell_short=True, offered=20, found=60_000)


@pytest.mark.parametrize("module", [explanation, filters, trial])
def test_the_examples_are_right(module: Any) -> None:
    done = doctest.testmod(module)
    assert done.attempted
    assert not done.failed


def advice(reading: Reading, asked: Request | None = None, hits: int = 10, **changed: Any) -> list[str]:
    return list(advise(reading, dataclasses.replace(SPACE, **changed), asked or request(10), hits))


def test_only_a_collection_without_hits_holds_nothing() -> None:
    nothing = dataclasses.replace(SHORT, found=0)
    assert advice(nothing, hits=0) == ["the collection holds nothing yet: searchapp ingest FILE --collection things"]
    assert advice(nothing, request(10, 0, {"a": 1}), hits=0) == [
        "no document passes the filter; check its fields and values"
    ]


def test_an_index_that_gives_too_little_is_to_be_vacuumed() -> None:
    [sentence] = advice(dataclasses.replace(SHORT, offered=1))
    assert sentence == (
        "the index gave 1 passage for the 10 asked for, so that everything was compared; let the server see what there"
        " is: VACUUM ANALYZE searchapp_data.documents_3, searchapp_data.chunks_7"
    )


def test_documents_of_many_passages_may_be_in_the_way() -> None:
    [sentence] = advice(SHORT, chunks_per_document=3.5)
    assert "are equally far or of the same documents, so that everything was compared" in sentence


@pytest.mark.parametrize(
    ("found", "told"), [(1, "1 document matches and 1,015"), (1000, "1,000 documents match and 1,")]
)
def test_how_many_match_is_told_beside_limit_and_offset(found: int, told: str) -> None:
    [sentence] = advice(dataclasses.replace(SHORT, found=found), request(15, 1000), hits=0)
    assert sentence.startswith(told)


def test_a_planner_that_reads_everything_of_a_large_collection_may_know_too_little() -> None:
    [sentence] = advice(dataclasses.replace(SHORT, fell_short=False))
    assert "comparing with all 60,000 passages for faster than the index" in sentence
    assert sentence.endswith(": ANALYZE searchapp_data.documents_3, searchapp_data.chunks_7")


def test_a_threshold_is_told_where_it_left_hits_out() -> None:
    reading = dataclasses.replace(SHORT, rung=FILTER, fell_short=False, found=12)
    asked = request(10, 5, {"a": 1}, max_distance=0.25)
    assert advice(reading, asked, hits=7) == []  # twelve match, the first five are behind
    [sentence] = advice(reading, asked, hits=3)
    assert sentence.startswith("3 hits came within the distance 0.25; a larger max_distance")


def test_each_undeclared_field_is_named_so_that_a_shell_takes_it() -> None:
    reading = dataclasses.replace(SHORT, rung=FILTER, fell_short=False, documents_tried=60_000)
    sentences = advice(reading, request(10, 0, {"year": {"$gte": 2020}, "by whom": "me", "\x1b[2J": 1}))
    assert [each.partition(": ")[2] for each in sentences] == [
        "searchapp collection field add things year:number",
        "searchapp collection field add things 'by whom:text'",
    ]


def test_fields_are_undeclared_where_an_index_on_them_could_help() -> None:
    filter = {
        "year": {"$gt": 1990, "$lte": 2020},
        "$or": [{"lang": "en"}, {"lang": {"$in": ["de", "fr"]}}, {"on": {"$lt": "2024-01-31"}}],
        "$not": {"price": 1},
        "size": {"$ne": 1, "$exists": True, "$not": {"$gt": 3}},
        "tags": {"$contains": "new"},
        "sold": True,
        "place": None,
    }
    fields = (Field("year", "number"), Field("lang", "text"), Field("on", "date"))
    assert filters.undeclared(filter, ()) == fields
    assert filters.undeclared(filter, fields[:2]) == fields[2:]


def node(kind: str, *plans: dict[str, Any], rows: float = 0, loops: int = 1, **more: Any) -> dict[str, Any]:
    given = {name.replace("_", " "): value for name, value in more.items()}
    return {
        "Node Type": kind, "Actual Rows": rows, "Actual Loops": loops, "Parallel Aware": False, "Plans": plans, **given
    }  # fmt: skip


def hnsw(loops: int = 1) -> dict[str, Any]:
    return node("Index Scan", rows=20, loops=loops, Relation_Name="chunks_7", Index_Name="space_7_hnsw")


def plan(*rungs: dict[str, Any], last: dict[str, Any], found: int) -> dict[str, Any]:
    """What EXPLAIN gives for rungs that are CTEs, and a last one."""
    ctes = [node("Limit", rung, rows=20, Subplan_Name=f"CTE anon_{place}") for place, rung in enumerate(rungs)]
    shown = node("Index Scan", rows=1, loops=10, Relation_Name="documents_3", Index_Name="documents_3_pkey")
    return {"Plan": node("Limit", *ctes, node("Append", node("Unique", last), rows=found), shown)}


def test_rungs_that_were_not_run_do_not_count() -> None:
    idle = node("Seq Scan", loops=0, Relation_Name="chunks_7")
    one = read_plan(plan(hnsw(), hnsw(loops=0), last=idle, found=20), SPACE, request(10))
    two = read_plan(plan(hnsw(), hnsw(), last=idle, found=20), SPACE, request(10))
    assert (one.rung, one.index, one.passages, one.documents, one.fell_short) == (FIRST, "space_7_hnsw", 20, 0, False)
    assert (two.rung, two.index, two.passages, two.fell_short) == (WIDER, "space_7_hnsw", 40, False)


def test_a_last_rung_that_ran_gave_the_answer() -> None:
    everything = node("Seq Scan", rows=2000.5, loops=2, Relation_Name="chunks_7", Parallel_Aware=True)
    reading = read_plan(plan(hnsw(), last=node("Gather", everything, rows=4001), found=4001), SPACE, request(10))
    assert (reading.rung, reading.index, reading.passages) == (EXACT, None, 4021)
    assert (reading.fell_short, reading.offered, reading.found) == (True, 20, 4001)


def test_documents_looked_up_one_by_one_are_as_many_as_the_loops() -> None:
    """Of servers before 18 the mean of a loop is a whole number: half of them kept would be none."""
    look_up = node(
        "Index Scan", loops=60, Relation_Name="documents_3", Index_Name="documents_3_pkey", Rows_Removed_by_Filter=1
    )
    idle = node("Seq Scan", loops=0, Relation_Name="chunks_7")
    reading = read_plan(
        plan(node("Nested Loop", hnsw(), look_up), last=idle, found=20), SPACE, request(10, 0, {"a": 1})
    )
    assert (reading.rung, reading.documents, reading.documents_tried) == (FIRST, 60, 60)


def test_a_filter_that_several_indexes_answer_names_them_all() -> None:
    indexes = [node("Bitmap Index Scan", Index_Name=name) for name in ("documents_3_year", "documents_3_lang")]
    bitmap = node("Bitmap Heap Scan", node("BitmapAnd", *indexes), rows=5, Relation_Name="documents_3")
    idle = node("Seq Scan", loops=0, Relation_Name="chunks_7")
    reading = read_plan(plan(bitmap, last=idle, found=5), SPACE, request(1, 0, {"a": 1}))
    assert (reading.rung, reading.index) == (FILTER, "documents_3_year, documents_3_lang")
    assert (reading.documents, reading.documents_tried) == (5, 0)


def test_people_get_a_line_each() -> None:
    told = Explanation(VECTOR, EXACT, None, None, 1200, 1, 0, 0, Times(1, 2.25, 0), ("do this", "or that"), "")
    assert str(told).splitlines() == [
        "answer   no hits, exact: compared with all that the filter keeps",
        "read     1,200 passages, and 1 document for the filter",
        "took     encode 1.0 ms, database 2.2 ms, fetch 0.0 ms",
        "advice   do this",
        "advice   or that",
    ]
