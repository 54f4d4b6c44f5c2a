"""Bytes from files and from standard input: counted, unpacked, cut into lines, with what fails in plain words."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from searchapp import errors

# What one line of JSONL, or one file of a folder, may hold; more is rejected instead of read into memory.
MAX_BYTES = 256 * 2**20
_CHUNK = 256 * 2**10
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
UNREADABLE = (OSError, EOFError, zlib.error)


class _Counted(io.RawIOBase):
    """A binary stream that reports how many bytes were taken from it; closing it leaves the stream below open."""

    def __init__(self, stream: IO[bytes], advance: Callable[[int], object]) -> None:
        self._stream = cast(io.BufferedIOBase, stream)
        self._advance = advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # readinto1: a slow pipe's rows come when they are written, not when a chunk of them is full.
        count = self._stream.readinto1(buffer)
        self._advance(count)
        return count


@contextmanager
def open_stream(path: Path | None, advance: Callable[[int], object] = lambda _: None) -> Iterator[io.BufferedReader]:
    """Open a file, or standard input where ``path`` is None; gzip is known by its first bytes and unpacked.

    :param advance: told how many bytes (packed ones, where they are packed) each read took.
    """
    with ExitStack() as stack:
        below = _standard_input() if path is None else stack.enter_context(path.open("rb"))
        stream: io.BufferedReader = stack.enter_context(_buffer(_Counted(below, advance)))
        if stream.peek(2)[:2] == _GZIP:
            # A buffer of its own: lines straight from a GzipFile are read in Python, some ten times slower.
            stream = stack.enter_context(_buffer(gzip.GzipFile(fileobj=stream)))
        yield stream


def _buffer(raw: Any) -> io.BufferedReader:
    return io.BufferedReader(raw, _CHUNK)


def _standard_input() -> IO[bytes]:
    if sys.stdin is None:
        raise errors.SourceUnreadable("standard input is closed")
    return sys.stdin.buffer


def read_lines(stream: io.BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """Yield every line with its number, from 1, without the file's byte order mark; None for one over ``MAX_BYTES``."""
    number = 0
    while line := stream.readline(MAX_BYTES + 1):
        number += 1
        if len(line) > MAX_BYTES:
            while line and not line.endswith(b"\n"):
                line = stream.readline(_CHUNK)
            yield number, None
        else:
            yield number, line.removeprefix(_BOM) if number == 1 else line


def printable(name: str) -> str:
    """Spell a file's name so that it can be written anywhere, also one that is not UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what fails while ``name`` is read into ``errors.SourceUnreadable``."""
    try:
        yield
    except UNREADABLE as exc:
        raise errors.SourceUnreadable(f"cannot read {name}: {explain(exc)}") from exc


def explain(exc: Exception) -> str:
    """Say why a file cannot be read, in one line.

    >>> explain(FileNotFoundError(2, "No such file or directory"))
    'No such file or directory'
    """
    match exc:
        case EOFError():
            return "its gzip ends too early; is the file whole?"
        case zlib.error() | gzip.BadGzipFile():
            return f"its gzip is damaged ({exc})"
        case OSError(strerror=str(reason)):
            return reason
    return next(iter(str(exc).splitlines()), type(exc).__name__)


def explain_encoding(exc: UnicodeDecodeError) -> str:
    r"""Say which byte is not UTF-8, and where it stands; columns count characters, as an editor does.

    >>> try:
    ...     b"caf\xc3\xa9 \xff".decode()
    ... except UnicodeDecodeError as exc:
    ...     print(explain_encoding(exc))
    not UTF-8 (byte 0xff at column 6)
    """
    before = exc.object[: exc.start].decode()
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    where = f"column {column}" if line == 1 else f"line {line}, column {column}"
    return f"not UTF-8 (byte 0x{exc.object[exc.start]:02x} at {where})"
