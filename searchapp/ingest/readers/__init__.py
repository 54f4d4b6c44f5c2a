"""Sources of documents: JSON Lines, CSV, TSV, Parquet, and text, Markdown and HTML in files and folders.

    for document in readers.open_source("articles.jsonl"):
        ...

What is faulty comes as a ``Rejected``; a source is never held in memory. Everything but Parquet may be packed by gzip.
"""

from __future__ import annotations

import stat
from pathlib import Path, PurePath

from searchapp import errors
from searchapp.ingest.documents import DEFAULT_FIELDS, Fields
from searchapp.ingest.readers import files, jsonl, streams
from searchapp.ingest.readers.delimited import Delimited
from searchapp.ingest.readers.files import Files
from searchapp.ingest.readers.jsonl import JsonLines
from searchapp.ingest.readers.parquet import Parquet
from searchapp.ingest.readers.source import Source

__all__ = ["Source", "open_source"]

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json-lines": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    **dict.fromkeys(files.SUFFIXES, "text"),
}
_PARQUET = b"PAR1"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_HEAD_BYTES = 4_096


def open_source(path: str | Path, fields: Fields = DEFAULT_FIELDS) -> Source:
    """Find out what a path is, and return its documents as a source, to be iterated over.

    :param path: a file or a folder; ``-`` is JSON Lines from standard input. The format is told by the suffix, or
        without a known one by the content.
    :raises errors.SourceUnreadable: no such file, no permission, a device, an unknown format, a folder without files.
    """
    if str(path) == "-":
        return JsonLines("stdin", None, fields, total_bytes=None)
    path = Path(path)
    with streams.reading(str(path)):
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return Files(path, fields)
        if not stat.S_ISREG(status.st_mode):
            raise errors.SourceUnreadable(f"{path} is neither a file nor a folder; a pipe is read as -, standard input")
        return _open_file(path, fields, status.st_size)


def _open_file(path: Path, fields: Fields, size: int) -> Source:
    with streams.open_stream(path) as stream:
        head = stream.read(_HEAD_BYTES)
    if head.startswith(_UTF16):
        raise errors.SourceUnreadable(f"{path} is UTF-16, expected UTF-8; make it so: iconv -f UTF-16 -t UTF-8 {path}")
    match _format(path, head):
        case "jsonl":
            return JsonLines(path.name, path, fields, size)
        case "csv":
            return Delimited(path.name, path, fields, size, delimiter=",")
        case "tsv":
            return Delimited(path.name, path, fields, size, delimiter="\t")
        case "parquet":
            return Parquet(path.name, path, fields, size)
        case _:
            return Files(path, fields)


def _format(path: Path, head: bytes) -> str:
    """Tell a file's format by its suffix and its first bytes.

    :raises errors.SourceUnreadable: it is none that is known, or not what its suffix says.
    """
    kind = _SUFFIXES.get(PurePath(path.name.lower().removesuffix(".gz")).suffix)
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if kind is None and head.startswith(_PARQUET):
        kind = "parquet"
    if kind == "parquet":
        _check_parquet(path)
    if kind in (None, "json") and first == b"[":
        raise jsonl.spread(str(path), array=True)
    if kind == "json" or (kind is None and first == b"{"):
        return "jsonl"
    if kind is None:
        raise errors.SourceUnreadable(
            f"{path} is of no format that can be read: {', '.join(_SUFFIXES)} (also with .gz), or a folder"
        )
    return kind


def _check_parquet(path: Path) -> None:
    with path.open("rb") as stream:
        if stream.read(len(_PARQUET)) != _PARQUET:
            raise errors.SourceUnreadable(
                f"{path} is no Parquet file: it does not begin with PAR1 (packed ones must be unpacked)"
            )
