import csv
import datetime as dt
import gzip
import io
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchapp import errors
from searchapp.ingest import readers
from searchapp.ingest.documents import DEFAULT_FIELDS, Document, Fields, Rejected
from searchapp.ingest.readers import delimited, jsonl, streams

ONE = b'{"id": 1, "text": "one"}\n'
TWO = b'{"id": 2, "text": "two"}\n'


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def read(path: Path | str, fields: Fields = DEFAULT_FIELDS) -> list[Document | Rejected]:
    return list(readers.open_source(path, fields))


def keys(found: Sequence[Document | Rejected]) -> list[str | None]:
    return [row.key for row in found]


def the_fault(path: Path, fields: Fields = DEFAULT_FIELDS) -> Rejected:
    faults = [row for row in read(path, fields) if isinstance(row, Rejected)]
    assert len(faults) == 1
    return faults[0]


def refusal(path: Path | str, fields: Fields = DEFAULT_FIELDS, *, of: type[Exception] = errors.SourceUnreadable) -> str:
    with pytest.raises(errors.InvalidInput) as caught:
        read(path, fields)
    assert type(caught.value) is of
    message = str(caught.value)
    assert "\n" not in message
    return message


# JSON Lines


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json-lines", "a.json", "a.JSONL", "a", "a.data"])
def test_json_lines_are_known_by_their_suffix_or_their_first_byte(tmp_path: Path, name: str) -> None:
    assert read(write(tmp_path / name, ONE + TWO)) == [Document("1", "one", None, {}), Document("2", "two", None, {})]


def test_json_rows_keep_their_types(tmp_path: Path) -> None:
    row = {"id": "a", "text": "t", "n": 10**40, "f": 0.1, "yes": True, "none": None, "deep": [{"a": []}]}
    (document,) = read(write_rows(tmp_path / "a.jsonl", [row]))
    assert isinstance(document, Document)
    assert document.metadata == {name: row[name] for name in row if name not in ("id", "text")}


@pytest.mark.parametrize(
    ("line", "reason", "key"),
    [
        (b'{"id": 7, "text": "a\xff"}', "not UTF-8 (byte 0xff at column 21)", "7"),
        (b'{"id": "\xff", "text": "a"}', "not UTF-8 (byte 0xff at column 9)", None),
        (b'{"id": 7, "text": "\xed\xa0\x80"}', "not UTF-8 (byte 0xed at column 20)", "7"),
        (b'{"id": 7, "text"', "malformed JSON: Expecting ':' delimiter at column 17", None),
        (b"nonsense", "malformed JSON: Expecting value at column 1", None),
        (b'{"id": 7, "text": "a\0"}', "malformed JSON: Invalid control character at column 21", None),
        (b"[" * 100_000 + b"]" * 100_000, "malformed JSON: lists and objects too deep inside each other", None),
        (b'{"id": ' + b"9" * 5_000 + b"}", "malformed JSON: a number with too many digits", None),
        (b"[1, 2]", "a JSON array, expected an object", None),
        (b'"text"', "a JSON string, expected an object", None),
        (b"17", "a number, expected an object", None),
        (b"null", "null, expected an object", None),
        (b"{}", "no field 'id', '_id' or 'key'", None),
        (b'{"id": 7, "text": "\\u0000"}', "NUL in field 'text'", "7"),
        (b'{"id": 7, "text": "t", "title": "\\ud800"}', "a lone surrogate in field 'title'", "7"),
        (b'{"id": 7, "text": "t", "a": {"b": NaN}}', "NaN in field 'a'; null says that a number is missing", "7"),
        (b'{"id": 7, "text": " "}', "empty text", "7"),
        (b'{"id": 7, "text": 3}', "field 'text' is a number, expected text", "7"),
    ],
)
def test_a_faulty_line_is_rejected_alone(tmp_path: Path, line: bytes, reason: str, key: str | None) -> None:
    path = write(tmp_path / "a.jsonl", ONE + b"\n  \n" + line + b"\n" + TWO.rstrip())
    found = read(path)
    assert found[1] == Rejected("a.jsonl:4", 4, reason, key)
    assert keys([found[0], found[2]]) == ["1", "2"]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_json_lines(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + (ONE + TWO).replace(b"\n", b"\r\n")
    assert keys(read(write(tmp_path / "a.jsonl", content))) == ["1", "2"]
    assert keys(read(write(tmp_path / "a", content))) == ["1", "2"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_of_json_lines_has_no_documents(tmp_path: Path, content: bytes) -> None:
    assert read(write(tmp_path / "a.jsonl", content)) == []
    assert read(write(tmp_path / "a.json", content)) == []


def test_a_line_that_is_too_long_is_rejected_and_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_BYTES", 2**20)
    long = json.dumps({"id": 3, "text": "x" * 3 * 2**20}).encode() + b"\n"
    found = read(write(tmp_path / "a.jsonl", ONE + long + TWO + long.rstrip()))
    assert keys(found) == ["1", None, "2", None]
    assert found[1] == Rejected("a.jsonl:2", 2, "a line of more than 1 MB", None)


@pytest.mark.parametrize(
    ("name", "content", "command"),
    [
        ("a.json", '[{"id": 1}]', "jq -c '.[]'"),
        ("a.json", "\ufeff\n [\n", "jq -c '.[]'"),
        ("a", "[{}]", "jq -c '.[]'"),
        ("a.jsonl", '[\n{"id": 1},\n', "jq -c '.[]'"),
        ("a.json", '{\n  "id": 1\n}\n', "jq -c ."),
    ],
)
def test_json_that_is_not_one_object_a_line_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, name: str, content: str, command: str
) -> None:
    assert command in refusal(write(tmp_path / name, content))


def test_json_lines_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (ONE + b"?\n" + TWO, gzip.compress(ONE + b"?\n" + TWO)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        source = readers.open_source("-")
        found = list(source)
        assert keys(found) == ["1", None, "2"]
        assert isinstance(found[1], Rejected)
        assert found[1].place == "stdin:2"
        assert (source.name, source.total_bytes, source.position) == ("stdin", None, len(content))
        assert not sys.stdin.closed
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal("-") == "standard input is closed"


# Fields that no row has


def test_a_named_field_that_no_json_row_has_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"id": 1, "body": "x"}, {"id": 2, "head": "y"}])
    assert refusal(path, of=errors.InvalidInput) == (
        f"{path}: no row has a field 'text' (name the one that is the text with --text); the fields are: id, body, head"
    )
    assert "a field 'bodi' (did you mean 'body'?);" in refusal(path, Fields(text=("bodi",)), of=errors.InvalidInput)
    for fields in (Fields(key="x"), Fields(title="x"), Fields(text=("body", "x")), Fields(metadata=("x",))):
        assert "no row has a field 'x'" in refusal(
            path, Fields(fields.key, fields.title, fields.text or ("body",), fields.metadata), of=errors.InvalidInput
        )
    assert keys(read(path, Fields(text=("body", "head"), metadata=()))) == ["1", "2"]


def test_a_source_without_any_key_or_text_is_told_both_at_once(tmp_path: Path) -> None:
    message = refusal(write_rows(tmp_path / "a.jsonl", [{"a": 1}]), of=errors.InvalidInput)
    assert "'id', '_id' or 'key' (name the one that is the key with --key); nor a field 'text'" in message


def test_a_missing_text_field_is_known_before_the_first_document(tmp_path: Path) -> None:
    rows = [{"id": number, "body": "x"} for number in range(jsonl.AHEAD_ROWS + 10)]
    source = readers.open_source(write_rows(tmp_path / "a.jsonl", rows))
    with pytest.raises(errors.InvalidInput, match="none of the first 1,000 rows has a field 'text'"):
        next(iter(source))


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_rare_field_that_is_named_is_looked_for_in_the_whole_file(tmp_path: Path, ascii_only: bool) -> None:
    rows: list[dict[str, Any]] = [{"id": number, "text": "gr\u00f6\u00dfe"} for number in range(jsonl.AHEAD_ROWS + 10)]
    rows[-1] = {"id": "last", "text": "x", "gr\u00f6\u00dfe": 42}
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows))
    assert keys(read(path, Fields(text=("text", "gr\u00f6\u00dfe")))[:2]) == ["0", "1"]
    last = read(path, Fields(metadata=("gr\u00f6\u00dfe",)))[-1]
    assert isinstance(last, Document)
    assert last.metadata == {"gr\u00f6\u00dfe": 42}
    assert "has a field 'x'" in refusal(path, Fields(metadata=("gr\u00f6\u00dfe", "x")), of=errors.InvalidInput)


def test_standard_input_is_looked_ahead_no_further_than_its_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    content = ONE * jsonl.AHEAD_ROWS + b'{"id": 2, "text": "t", "rare": 1}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(errors.InvalidInput, match="none of the first 1,000 rows has a field 'rare'"):
        list(readers.open_source("-", Fields(metadata=("rare",))))


def test_fields_are_no_error_where_no_row_could_be_read(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "a.jsonl", b"?\n?\n"), Fields(key="x"))) == 2


def test_the_look_ahead_is_bounded_by_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "AHEAD_BYTES", 100)
    path = write_rows(tmp_path / "a.jsonl", [{"id": number, "text": "x" * 60, "n": 1} for number in range(9)])
    with pytest.raises(errors.InvalidInput, match="none of the first 2 rows"):
        read(path, Fields(text=("y",)))
    assert len(read(path)) == 9


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_that_lacks_a_named_field_is_refused_by_its_header(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.csv":
        write(path, "id,title,body\n")
    else:
        pq.write_table(pa.table({"id": [1], "title": ["t"], "body": ["x"]}), path)
    assert refusal(path, of=errors.InvalidInput).endswith("; the fields are: id, title, body")
    fields = Fields(text=("body",), metadata=("titel",))
    assert "'titel' (did you mean 'title'?)" in refusal(path, fields, of=errors.InvalidInput)


# CSV and TSV


def test_csv_and_tsv_values_are_text(tmp_path: Path) -> None:
    expected = [Document("01", "one", "T", {"n": "3", "e": ""})]
    assert read(write(tmp_path / "a.csv", "id,title,text,n,e\n01,T,one,3,\n")) == expected
    for name in ("a.tsv", "a.tab"):
        assert read(write(tmp_path / name, "id\ttitle\ttext\tn\te\r\n01\tT\tone\t3\t\r\n")) == expected


def test_quoted_csv_fields_may_hold_line_ends_and_rows_are_counted_by_lines(tmp_path: Path) -> None:
    content = '\ufeff"id",text\r\n1,"a ""b"",\r\n\n\rc"\r\n\r\n2,\r\n3,x\n'
    found = read(write(tmp_path / "a.csv", content))
    assert found == [
        Document("1", 'a "b",\r\n\n\rc', None, {}),
        Rejected("a.csv:7", 7, "empty text", "2"),
        Document("3", "x", None, {}),
    ]


@pytest.mark.parametrize(
    ("row", "reason", "key"),
    [
        (b"7,a\xff\xfe", "not UTF-8 (byte 0xff in field 'text')", "7"),
        (b"\xe9,a", "not UTF-8 (byte 0xe9 in field 'id')", None),
        (b"7,a\0", "NUL in field 'text'", "7"),
        (b"7,a,b,c,d", "5 fields, but the header has 3", "7"),
        (b"7", "no field 'text'", "7"),
        (b",a,b", "empty key", None),
        (b'7,"a"b', "malformed CSV: ',' expected after '\"'", None),
    ],
)
def test_a_faulty_csv_row_is_rejected_alone(tmp_path: Path, row: bytes, reason: str, key: str | None) -> None:
    found = read(write(tmp_path / "a.csv", b"id,text,note\n1,one,\n" + row + b"\n2,two\n"))
    assert found == [
        Document("1", "one", None, {"note": ""}),
        Rejected("a.csv:3", 3, reason, key),
        Document("2", "two", None, {}),
    ]


def test_a_short_csv_row_does_not_take_another_field_for_its_key(tmp_path: Path) -> None:
    assert the_fault(write(tmp_path / "a.csv", "key,text,id\nk,t\n")).reason == "no field 'id'"


def test_a_quote_that_is_never_closed_is_said_at_the_line_it_begins(tmp_path: Path) -> None:
    fault = the_fault(write(tmp_path / "a.csv", 'id,text\n1,one\n2,"two\n3,three\n'))
    assert fault == Rejected("a.csv:3", 3, "malformed CSV: unexpected end of data; a quote is never closed", None)


def test_a_csv_field_may_be_long_but_not_endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv.field_size_limit(131_072)
    long = "x" * 200_000
    assert read(write(tmp_path / "a.csv", f"id,text\n1,{long}\n")) == [Document("1", long, None, {})]
    monkeypatch.setattr(delimited, "MAX_FIELD", 1_000)
    assert "a line of more than 1,000 characters" in refusal(tmp_path / "a.csv")
    message = refusal(write(tmp_path / "a.csv", 'id,text\n1,one\n2,"' + "two\n" * 1_000))
    assert "a.csv:3: a field of more than 1,000 characters; is a closing quote missing?" in message


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "there is none"),
        (b"\n\n", "there is none"),
        (b"id,text,id\n", "2 columns of the header are called 'id'"),
        (b"id,,text\n", "column 2 of the header has no name"),
        (b"id,t\xe9xt\n", "not UTF-8 (byte 0xe9"),
        (b'id,"text\n', "a quote is never closed"),
    ],
)
def test_a_header_that_names_no_fields_is_refused(tmp_path: Path, header: bytes, reason: str) -> None:
    assert reason in refusal(write(tmp_path / "a.csv", header))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "a.csv"


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(str.strip)))
def test_csv_text_is_kept_as_it_came(scratch: Path, texts: list[str]) -> None:
    with scratch.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("id", "text"), *enumerate(texts)])
    assert [row.text for row in read(scratch) if isinstance(row, Document)] == texts


# Parquet


def test_parquet_values_become_json(tmp_path: Path) -> None:
    moment = 1_700_000_000_123_456_789
    columns = {
        "id": pa.array([1.0]),
        "text": pa.array(["t"]).dictionary_encode(),
        "price": pa.array([Decimal("9.50")], pa.decimal128(10, 2)),
        "count": pa.array([Decimal("9.00")], pa.decimal128(10, 2)),
        "day": pa.array([dt.date(2024, 5, 1)]),
        "at": pa.array([moment], pa.int64()).cast(pa.timestamp("ns", "UTC")),
        "hour": pa.array([1_500_000_001], pa.int64()).cast(pa.time64("ns")),
        "took": pa.array([1_500_000_001], pa.int64()).cast(pa.duration("ns")),
        "raw": pa.array([b"\xff"]),
        "tags": pa.array([["a", None]]),
        "map": pa.array([[("a", moment)]], pa.map_(pa.string(), pa.timestamp("ns"))),
        "struct": pa.array(
            [{"x": 1, "y": [moment]}], pa.struct([("x", pa.int8()), ("y", pa.list_(pa.timestamp("ns")))])
        ),
        "fixed": pa.array([[moment]], pa.list_(pa.timestamp("ns"), 1)),
        "large": pa.array([[moment]], pa.large_list(pa.timestamp("ns"))),
        "none": pa.nulls(1),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (document,) = read(tmp_path / "a.parquet")
    assert isinstance(document, Document)
    assert (document.key, document.text) == ("1", "t")
    naive = "2023-11-14T22:13:20.123456"
    assert document.metadata == {
        "price": 9.5,
        "count": 9,
        "day": "2024-05-01",
        "at": naive + "+00:00",
        "hour": "00:00:01.500000",
        "took": "PT1.5S",
        "raw": "/w==",
        "tags": ["a", None],
        "map": {"a": naive},
        "struct": {"x": 1, "y": [naive]},
        "fixed": [naive],
        "large": [naive],
        "none": None,
    }


@pytest.mark.parametrize("name", ["a.parquet", "a.pq", "a", "a.data"])
def test_parquet_is_known_by_its_suffix_or_its_first_bytes(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", None]}), tmp_path / name)
    assert read(tmp_path / name) == [Document("1", "a", None, {}), Rejected(f"{name}:2", 2, "no field 'text'", "2")]


def test_parquet_rows_are_counted_over_row_groups_and_batches(tmp_path: Path) -> None:
    texts = [None if number in (300, 900) else "t" for number in range(1, 1_001)]
    pq.write_table(pa.table({"id": range(1, 1_001), "text": texts}), tmp_path / "a.parquet", row_group_size=400)
    source = readers.open_source(tmp_path / "a.parquet")
    found = list(source)
    assert len(found) == 1_000
    assert [row.line for row in found if isinstance(row, Rejected)] == [300, 900]
    assert source.position == source.total_bytes == (tmp_path / "a.parquet").stat().st_size


def test_a_parquet_value_that_python_has_none_for_is_rejected_alone(tmp_path: Path) -> None:
    columns = {
        "id": [1, 2, 3, 4],
        "text": pa.array([b"a", b"\xff", b"c", b"d"]).view(pa.string()),
        "at": pa.array([0, 0, 9 * 10**17, 0], pa.int64()).cast(pa.timestamp("us")),
        "map": pa.array([[], [], [], [("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int8())),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    first, *faults = read(tmp_path / "a.parquet")
    assert isinstance(first, Document)
    assert [(row.line, row.key) for row in faults if isinstance(row, Rejected)] == [(2, "2"), (3, "3"), (4, "4")]
    assert [row.reason.partition(":")[0] for row in faults if isinstance(row, Rejected)] == [
        "field 'text' cannot be read",
        "field 'at' cannot be read",
        "field 'map' cannot be read",
    ]
    assert keys(read(tmp_path / "a.parquet", Fields(metadata=()))) == ["1", "2", "3", "4"]


def test_columns_of_a_parquet_file_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1], "a.b": ["x"], "big": ["y" * 10_000]}), path, compression="none")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"y" * 9_000, b"\xff" * 9_000))
    assert read(path, Fields(text=("a.b",), metadata=())) == [Document("1", "x", None, {})]
    assert isinstance(read(path, Fields(text=("a.b",)))[0], Rejected)


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    assert "is no Parquet file" in refusal(write(tmp_path / "a.parquet", b""))
    assert "is no Parquet file" in refusal(write(tmp_path / "b.parquet", ONE))
    assert f"cannot read {tmp_path / 'c.parquet'}: " in refusal(write(tmp_path / "c.parquet", b"PAR1" + ONE))
    pq.write_table(pa.table({"id": [1], "text": ["a"]}), tmp_path / "d.parquet")
    packed = write(tmp_path / "d.parquet.gz", gzip.compress((tmp_path / "d.parquet").read_bytes()))
    assert "packed ones must be unpacked" in refusal(packed)
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])
    pq.write_table(twice, tmp_path / "e.parquet")
    assert "2 columns of the header are called 'id'" in refusal(tmp_path / "e.parquet")


# Sources of all kinds


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ONE),
        ("a.csv", b"id,text\n1,one\n"),
        ("a.tsv", b"id\ttext\n1\tone\n"),
        ("1.txt", b"one"),
        ("1.md", b"one"),
        ("1.html", b"<p>one"),
    ],
)
def test_packed_files_are_known_by_their_first_bytes(tmp_path: Path, name: str, content: bytes) -> None:
    packed = gzip.compress(content[:5]) + gzip.compress(content[5:])
    for path in (write(tmp_path / f"{name}.gz", packed), write(tmp_path / "b" / name, packed)):
        source = readers.open_source(path)
        (document,) = source
        assert isinstance(document, Document)
        assert (document.key[0], document.text) == ("1", "one")
        assert source.position == source.total_bytes == len(packed)


def test_a_packed_file_that_ends_early_gives_what_it_has_and_then_an_error(tmp_path: Path) -> None:
    content = b"".join(json.dumps({"id": n, "text": os.urandom(500).hex()}).encode() + b"\n" for n in range(5_000))
    packed = gzip.compress(content)
    source = readers.open_source(write(tmp_path / "a.jsonl.gz", packed[: len(packed) // 2]))
    found: list[Document | Rejected] = []
    with pytest.raises(errors.SourceUnreadable, match="its gzip ends too early"):
        found.extend(source)
    assert 2_000 < len(found) < 3_000
    assert all(isinstance(row, Document) for row in found)


def test_a_packed_file_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(ONE))
    packed[-6] ^= 1
    assert "its gzip is damaged (CRC check failed" in refusal(write(tmp_path / "a.jsonl.gz", bytes(packed)))
    packed[12] ^= 0xFF
    assert "its gzip is damaged" in refusal(write(tmp_path / "a.jsonl.gz", bytes(packed)))


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.csv") == f"cannot read {tmp_path / 'a.csv'}: No such file or directory"
    assert refusal(write(tmp_path / "file", "x") / "a.csv").endswith("Not a directory")
    assert "is neither a file nor a folder" in refusal("/dev/null")
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "a pipe is read as -" in refusal(tmp_path / "pipe.jsonl")
    assert ".jsonl, .ndjson" in refusal(write(tmp_path / "a.docx", b"PK\x03\x04"))
    assert "is of no format that can be read" in refusal(write(tmp_path / "empty", b""))
    assert "iconv -f UTF-16 -t UTF-8" in refusal(write(tmp_path / "a.csv", "id,text\n".encode("utf-16")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ONE).chmod(0)
    assert refusal(tmp_path / "a.jsonl").endswith("Permission denied")
    write(tmp_path / "a" / "b" / "c.txt", "x").parent.chmod(0)
    assert refusal(tmp_path / "a").endswith("Permission denied")
    (tmp_path / "a" / "b").chmod(0o700)


def test_a_source_can_be_read_again(tmp_path: Path) -> None:
    source = readers.open_source(write(tmp_path / "a.jsonl", ONE + TWO))
    assert source.position == 0
    assert list(source) == list(source)
    assert source.position == source.total_bytes


def test_the_position_grows_while_a_source_is_read(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", ({"id": n, "text": "x" * 100} for n in range(20_000)))
    source = readers.open_source(path)
    positions = [source.position for _ in source]
    assert positions == sorted(positions)
    assert len(set(positions)) >= 5


def test_reading_takes_little_memory_however_large_the_file(tmp_path: Path) -> None:
    rows = ({"id": n, "text": "t", "unused": "x" * 100_000} for n in range(500))
    path = write_rows(tmp_path / "a.jsonl", rows)
    tracemalloc.start()
    try:
        for _ in readers.open_source(path, Fields(metadata=())):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 25e6 < path.stat().st_size  # 16 MB of it are the rows looked ahead


def test_libraries_for_single_formats_are_loaded_only_with_these(tmp_path: Path) -> None:
    program = (
        "import sys; from searchapp.ingest import readers; list(readers.open_source(sys.argv[1]));"
        "print(*{'pyarrow', 'selectolax'} & sys.modules.keys())"
    )
    path = write(tmp_path / "a.jsonl", ONE)
    ran = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
