"""Strings that break programs go in and come out byte for byte: as keys, titles, texts, metadata and queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from searchapp import database, errors
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from searchapp.ingest.documents import Document, Rejected
from searchapp.ingest.readers import open_source
from tests import conftest
from tests.acceptance import commands

FILE = conftest.ROOT.parent / "shared" / "data" / "naughty-strings" / "blns.json"
# What the list lacks: every control character, other line ends, a byte order mark, the ends of Unicode.
MORE = ["".join(map(chr, range(1, 128))), "a\r\nb\rc\u2028d\u2029e\x85f", "\ufeffa\ufffe\uffff\U0010ffff"]


@dataclass(frozen=True, slots=True)
class Ingested:
    """A database with the strings in it, the documents that it should have, and the rows that were rejected."""

    db: Client
    documents: dict[str, Document]
    rejected: list[Rejected]


@pytest.fixture(scope="module")
def strings() -> list[str]:
    if not FILE.is_file():
        pytest.skip(f"{FILE} is absent")
    listed: list[str] = json.loads(FILE.read_bytes())
    assert len(listed) == 515
    return listed + MORE


@pytest.fixture(scope="module")
def url(server: database.Parameters, template: str) -> Iterator[str]:
    with conftest.temporary_database(server, template) as url:
        yield url


@pytest.fixture(scope="module")
def naughty(
    url: str, registry: Registry, strings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ingested]:
    documents = make_documents(strings)
    rows = [{"id": each.key, "title": each.title, "text": each.text, **each.metadata} for each in documents.values()]
    faulty = [
        {"id": "key\0", "text": "a"},
        {"id": "text", "text": "a\0b"},
        {"id": "title", "text": "a", "title": "a\0b"},
        {"id": "metadata", "text": "a", "value": [{"a\0b": 1}]},
        {"id": "half a pair", "text": "a\ud83d"},
    ]
    path = tmp_path_factory.mktemp("naughty") / "naughty.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + faulty))
    rejected: list[Rejected] = []
    engine = database.create_engine(database.parse_url(url))
    db = Client(engine, registry=registry)
    summary = db.ingest(open_source(path), collection="naughty", on_rejected=rejected.append)
    assert (summary.documents, summary.rejected) == (len(documents), len(faulty))
    yield Ingested(db, documents, rejected)
    engine.dispose()


def make_documents(strings: list[str]) -> dict[str, Document]:
    """One document a string that is not blank, by its key, which is the string itself where it is not repeated."""
    documents: dict[str, Document] = {}
    for number, each in enumerate(strings):
        text = each if each.strip() else f"the blank string of line {number}"
        key = each if each and each not in documents else f"row {number}"
        metadata: dict[str, Any] = {"value": each, "inside": [{each: each}]}
        documents[key] = Document(key=key, title=each or None, text=text, metadata=metadata)
    return documents


def test_strings_come_out_as_they_went_in(naughty: Ingested) -> None:
    assert {key: naughty.db.get(key, collection="naughty") for key in naughty.documents} == naughty.documents
    hits = naughty.db.search("anything", collection="naughty", limit=1000)
    assert {hit.key: (hit.title, hit.metadata) for hit in hits} == {
        key: (each.title, each.metadata) for key, each in naughty.documents.items()
    }
    assert all(hit.passage in naughty.documents[hit.key].text for hit in hits)
    whole = [hit for hit in hits if hit.passage == naughty.documents[hit.key].text]
    assert len(hits) - len(whole) <= 2  # those that are longer than the model reads


def test_strings_are_queries(naughty: Ingested, strings: list[str]) -> None:
    for each in filter(str.strip, strings):
        assert len(naughty.db.search(each, collection="naughty", limit=1, mode="vector")) == 1
        for mode in ("text", "hybrid"):
            try:
                hits = naughty.db.search(each, collection="naughty", limit=1, mode=mode)
            except errors.InvalidInput:
                assert each.strip().startswith(("-", '"', "“"))  # it only says what is not wanted
            else:
                assert len(hits) <= 1


def test_strings_are_filters(naughty: Ingested, strings: list[str]) -> None:
    for each in set(strings):
        found = naughty.db.count(collection="naughty", filter={"value": each})
        assert found == strings.count(each), each


def test_nul_and_lone_surrogates_are_rejected_with_their_line(naughty: Ingested) -> None:
    first = len(naughty.documents) + 1
    assert [(each.line, each.reason, each.key) for each in naughty.rejected] == [
        (first, "NUL in field 'id'", None),
        (first + 1, "NUL in field 'text'", "text"),
        (first + 2, "NUL in field 'title'", "title"),
        (first + 3, "NUL in field 'value'", "metadata"),
        (first + 4, "a lone surrogate in field 'text'", "half a pair"),
    ]


@pytest.mark.parametrize("text", ["a\0b", "a\ud83d"])
def test_what_no_database_holds_is_asked_for_calmly(naughty: Ingested, text: str) -> None:
    db = naughty.db
    assert db.get(text, collection="naughty") is None
    assert db.delete([text], collection="naughty") == 0
    with pytest.raises(errors.InvalidInput, match="the query has a NUL or what is not UTF-8"):
        db.search(text, collection="naughty")
    for call in (db.describe, db.drop_collection, db.create_collection):
        with pytest.raises(errors.InvalidName, match="is not allowed"):
            call(text)
    with pytest.raises(errors.RowRejected, match=r"document 2: (NUL|a lone surrogate) in field 'text'"):
        db.ingest([{"key": "a", "text": "a"}, Document("b", text, None, {})], collection="naughty")


def test_the_command_takes_them_as_keys_and_prints_them_as_json(naughty: Ingested, url: str, tmp_path: Path) -> None:
    keys = [*MORE, "--help", "社會科學院語學研究所", "<script>alert(123)</script>", max(naughty.documents, key=len)]
    calls = [["get", "--collection", "naughty", "--json", "--", key] for key in keys]
    for key, done in zip(keys, commands.run_all(url, tmp_path, calls), strict=True):
        assert (done.returncode, done.stderr) == (0, "")
        assert Document(**json.loads(done.stdout)) == naughty.documents[key]
