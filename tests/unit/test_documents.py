import datetime as dt
import json
import uuid
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import MetaData

from searchapp.ingest import documents
from searchapp.ingest.documents import Document, Fields, InvalidRow
from searchapp.ingest.readers import jsonl

NAUGHTY = [
    "'; DROP TABLE documents; --",
    "\\N",
    "\ttab and\r\nline ends\r",
    " spaces around ",
    "\ufeffa byte order mark, \u200b\u2028 and other unseen ones",
    "cafe\u0301 is not caf\u00e9",
    "\u0645\u0631\u062d\u0628\u0627 \u202e right to left",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U00020000 \U0010ffff \uffff",
    "\x01\x1f\x7f\x80",
    '{"a": "$1 %s {0}"}',
]
storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
words = st.one_of(storable.filter(str.strip), st.sampled_from(NAUGHTY))


def reason_of(row: dict[str, Any], fields: Fields = documents.DEFAULT_FIELDS) -> str:
    with pytest.raises(InvalidRow) as caught:
        documents.from_row(row, fields)
    return caught.value.reason


def metadata_of(value: object) -> Any:
    return documents.from_row({"id": 1, "text": "t", "field": value}).metadata["field"]


def metadata_reason(value: object) -> str:
    return reason_of({"id": 1, "text": "t", "field": value})


@settings(deadline=None)
@given(
    key=words.filter(lambda key: len(key.encode()) <= documents.MAX_KEY_BYTES), text=words, title=words, note=storable
)
def test_text_title_key_and_metadata_of_a_json_row_are_kept_as_they_came(
    key: str, text: str, title: str, note: str
) -> None:
    row = {"id": key, "text": text, "title": title, "note": [note, {note: note}]}
    for ascii_only in (True, False):
        line = json.dumps(row, ensure_ascii=ascii_only).encode()
        document = documents.from_row(jsonl.parse(line))
        assert document == Document(key, text, title, {"note": [note, {note: note}]})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | storable,
    lambda inner: st.lists(inner) | st.dictionaries(storable, inner),
)


@settings(deadline=None)
@given(json_values)
def test_metadata_keeps_json_values_and_their_types(value: object) -> None:
    assert json.dumps(metadata_of(value)) == json.dumps(value)


def test_fields_without_names_are_id_title_text_and_the_rest_is_metadata() -> None:
    row = {"id": "a", "title": "T", "text": "x", "price": 3, "tags": ["b"]}
    assert documents.from_row(row) == Document("a", "x", "T", {"price": 3, "tags": ["b"]})


@pytest.mark.parametrize(
    ("row", "key", "metadata"),
    [
        ({"key": "k", "_id": "u", "id": "i", "text": "t"}, "i", {"key": "k", "_id": "u"}),
        ({"key": "k", "_id": "u", "text": "t"}, "u", {"key": "k"}),
        ({"key": "k", "text": "t"}, "k", {}),
    ],
)
def test_the_key_is_the_first_of_id_underscore_id_and_key(
    row: dict[str, Any], key: str, metadata: dict[str, Any]
) -> None:
    document = documents.from_row(row)
    assert (document.key, document.metadata) == (key, metadata)


def test_named_fields_take_the_place_of_the_usual_ones() -> None:
    row = {"isbn": 7, "name": "N", "a": "one", "b": "two", "title": "T", "id": 1}
    document = documents.from_row(row, Fields(key="isbn", title="name", text=("a", "b")))
    assert document == Document("7", "one\n\ntwo", "N", {"title": "T", "id": 1})


def test_text_of_several_fields_leaves_out_empty_and_missing_parts() -> None:
    fields = Fields(text=("a", "b", "c", "d"))
    assert documents.from_row({"id": 1, "a": "one", "b": "", "c": None}, fields).text == "one"
    assert documents.from_row({"id": 1, "b": " \n", "d": " x "}, fields).text == " x "


def test_named_metadata_is_only_that_and_missing_fields_are_absent() -> None:
    row = {"id": 1, "text": "t", "title": "T", "a": 1, "b": 2}
    assert documents.from_row(row, Fields(metadata=("a", "title", "z"))).metadata == {"a": 1, "title": "T"}
    assert documents.from_row(row, Fields(metadata=())).metadata == {}


def test_a_field_that_is_not_asked_for_may_hold_anything() -> None:
    assert documents.from_row({"id": 1, "text": "t", "x": "\0"}, Fields(metadata=())).metadata == {}


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (1, "1"),
        ("1", "1"),
        (" 1", " 1"),
        (-3, "-3"),
        (3.0, "3"),
        (1e22, "10000000000000000000000"),
        (Decimal("7.00"), "7"),
        (np.int64(5), "5"),
        (np.float32(5), "5"),
        (np.str_("n"), "n"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (dt.date(2024, 5, 1), "2024-05-01"),
        (dt.datetime(2024, 5, 1, 12, 30), "2024-05-01 12:30:00"),
        ("k" * documents.MAX_KEY_BYTES, "k" * documents.MAX_KEY_BYTES),
    ],
)
def test_a_key_is_text_whatever_it_came_as(value: object, key: str) -> None:
    found = documents.read_key({"id": value})
    assert found == key
    assert type(found) is str


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "field 'id' is true or false; a key is text or a whole number"),
        (1.5, "field 'id' is 1.5; a key is text or a whole number"),
        (Decimal("1.00000000000000000001"), "field 'id' is 1.00000000000000000001; a key is text or a whole number"),
        (float("nan"), "NaN in field 'id'; null says that a number is missing"),
        (10**1000, "a number of more than 1,000 digits in field 'id'"),
        (None, "field 'id' is null; a key is text or a whole number"),
        ([1], "field 'id' is a list; a key is text or a whole number"),
        ({"$oid": "1"}, "field 'id' is an object; a key is text or a whole number"),
        (b"1", "field 'id' is of type bytes; a key is text or a whole number"),
        ("", "empty key"),
        ("a\0b", "NUL in field 'id'"),
        ("\ud800", "a lone surrogate in field 'id'"),
        ("k" * 2_001, "a key of 2,001 bytes; it may have 2,000"),
        ("\u00e9" * 1_001, "a key of 2,002 bytes; it may have 2,000"),
    ],
)
def test_what_cannot_be_a_key_is_rejected(value: object, reason: str) -> None:
    assert reason_of({"id": value, "text": "t"}) == reason


def test_a_missing_key_is_rejected_by_its_name() -> None:
    assert reason_of({"text": "t"}) == "no field 'id', '_id' or 'key'"
    assert reason_of({"text": "t", "id": 1}, Fields(key="isbn")) == "no field 'isbn'"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no field 'text'"),
        ({"text": None}, "no field 'text'"),
        ({"text": 5}, "field 'text' is a number, expected text"),
        ({"text": ["a"]}, "field 'text' is a list, expected text"),
        ({"text": ""}, "empty text"),
        ({"text": " \n\t\u2003"}, "empty text"),
        ({"text": "a\0"}, "NUL in field 'text'"),
        ({"text": "a\udc00"}, "a lone surrogate in field 'text'"),
        ({"text": "t", "title": "a\0"}, "NUL in field 'title'"),
        ({"text": "t", "title": "\ud83d"}, "a lone surrogate in field 'title'"),
        ({"text": "t", "title": ["a"]}, "field 'title' is a list, expected text"),
        ({"text": "t", "title": {"en": "a"}}, "field 'title' is an object, expected text"),
        ({"text": "t", "a\0b": 1}, r"NUL in field 'a\x00b'"),
        ({"text": "t", "\ud800": 1}, r"a lone surrogate in field '\ud800'"),
    ],
)
def test_a_faulty_row_is_rejected_with_its_key(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRow) as caught:
        documents.from_row({"id": 9, **row})
    assert (caught.value.reason, caught.value.key) == (reason, "9")


def test_missing_text_fields_are_all_named() -> None:
    assert reason_of({"id": 1}, Fields(text=("a", "b"))) == "no field 'a' or 'b'"


@pytest.mark.parametrize(("title", "expected"), [(None, None), ("", None), (" ", " "), (1984, "1984"), (2.5, "2.5")])
def test_a_title_is_text_or_none(title: object, expected: str | None) -> None:
    assert documents.from_row({"id": 1, "text": "t", "title": title}).title == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("12"), 12),
        (Decimal("1E+3"), 1000),
        (Decimal("9.50"), 9.5),
        (dt.date(2024, 5, 1), "2024-05-01"),
        (dt.time(8, 15), "08:15:00"),
        (dt.datetime(2024, 5, 1, tzinfo=dt.UTC), "2024-05-01T00:00:00+00:00"),
        (dt.timedelta(days=1, milliseconds=500), "PT86400.5S"),
        (uuid.UUID(int=2), "00000000-0000-0000-0000-000000000002"),
        (b"\x00\xff", "AP8="),
        (memoryview(b"a"), "YQ=="),
        ((1, (2,)), [1, [2]]),
        (np.bool_(True), True),
        (np.int8(-1), -1),
        (np.float64(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.datetime64("2024-05-01T12:00:00.000000001"), "2024-05-01T12:00:00.000000001"),
        (np.array(["2024-05-01"], dtype="datetime64[D]"), ["2024-05-01"]),
        ({"a": Decimal("1")}, {"a": 1}),
        (10**999, 10**999),
    ],
)
def test_metadata_turns_other_values_into_json(value: object, expected: object) -> None:
    found = metadata_of(value)
    assert found == expected
    assert json.loads(json.dumps(found)) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "NaN in field 'field'; null says that a number is missing"),
        (float("inf"), "an infinite number, or one beyond 1.8e308, in field 'field'"),
        (json.loads("-1e400"), "an infinite number, or one beyond 1.8e308, in field 'field'"),
        ([{"a": float("nan")}], "NaN in field 'field'; null says that a number is missing"),
        (np.float32("nan"), "NaN in field 'field'; null says that a number is missing"),
        (Decimal("NaN"), "NaN in field 'field'; null says that a number is missing"),
        (Decimal("Infinity"), "an infinite number, or one beyond 1.8e308, in field 'field'"),
        (Decimal("1E+999999999"), "a number of more than 1,000 digits in field 'field'"),
        (-(10**1000), "a number of more than 1,000 digits in field 'field'"),
        (np.datetime64("NaT"), "a date that is missing (NaT) in field 'field'; null says so"),
        (["a\0"], "NUL in field 'field'"),
        ({"a": {"b\0": 1}}, "NUL in field 'field'"),
        ({"\ud800": 1}, "a lone surrogate in field 'field'"),
        ({1: "a"}, "a name that is a number, expected text, in field 'field'"),
        ({1, 2}, "field 'field' is of type set, which JSON has no place for"),
        (np, "field 'field' is of type module, which JSON has no place for"),
    ],
)
def test_metadata_that_is_no_json_is_rejected_by_its_field(value: object, reason: str) -> None:
    assert metadata_reason(value) == reason


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_metadata_may_nest_a_hundred_deep_and_no_deeper() -> None:
    assert metadata_of(nested(100)) == nested(100)
    assert metadata_reason(nested(101)) == "more than 100 lists and objects inside each other in field 'field'"
    circle: list[Any] = []
    circle.append(circle)
    assert metadata_reason(circle).startswith("more than 100")


def test_a_field_with_a_very_long_name_is_named_shortly() -> None:
    assert len(reason_of({"id": 1, "text": "t", "n" * 10_000: "\0"})) < 120


def test_an_object_of_a_caller_is_a_mapping_or_has_attributes() -> None:
    expected = Document("1", "x", "T", {"a": [1]})
    assert documents.from_object({"key": 1, "text": "x", "title": "T", "metadata": {"a": (1,)}}) == expected
    assert documents.from_object(SimpleNamespace(key=1, text="x", title="T", metadata={"a": [1]})) == expected
    assert documents.from_object(expected) == expected
    assert documents.from_object(SimpleNamespace(key="1", text="x")) == Document("1", "x", None, {})
    assert documents.from_object({"key": "1", "text": "x", "metadata": None}).metadata == {}


def test_the_metadata_that_sqlalchemy_gives_every_object_is_not_a_documents() -> None:
    assert documents.from_object(SimpleNamespace(key="1", text="x", metadata=MetaData())).metadata == {}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            {"key": 1, "text": "x", "price": 3},
            "a document has key, text, title and metadata, not 'price'; what else it has goes into metadata",
        ),
        ({"text": "x"}, "no field 'key'"),
        ({"id": 1, "text": "x"}, "a document has key, text, title and metadata, not 'id'; what else"),
        ({"key": 1}, "no field 'text'"),
        ({"key": 1, "text": "x", "metadata": [1]}, "metadata is a list, expected a mapping"),
        ({"key": 1, "text": "x", "metadata": {2: 1}}, "a metadata field's name is a number, expected text"),
        ({"key": 1, "text": "x", "metadata": {"a": {1}}}, "field 'a' is of type set"),
        ("just text", "a document is a mapping, or an object with key and text; got str"),
        (SimpleNamespace(key=1), "a document is a mapping, or an object with key and text; got SimpleNamespace"),
    ],
)
def test_an_object_that_is_no_document_is_refused(source: object, reason: str) -> None:
    with pytest.raises(InvalidRow) as caught:
        documents.from_object(source)
    assert caught.value.reason.startswith(reason)
    assert isinstance(caught.value, ValueError)
