"""Files of text, Markdown and HTML, one document each: a folder of them, or a single one."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from searchapp import errors
from searchapp.ingest import documents
from searchapp.ingest.documents import Document, Fields, InvalidRow, Rejected
from searchapp.ingest.readers import hypertext, source, streams

SUFFIXES = {".txt": "txt", ".md": "md", ".markdown": "md", ".html": "html", ".htm": "html"}
# A file is a row of these; ``path`` and ``format`` are its metadata.
FIELDS = ("key", "title", "text", "path", "format")
# A parsed page takes some twenty times the memory of its file.
MAX_PAGE_BYTES = 32 * 2**20
_HEADING = re.compile(r"# +(.*?)(?: +#+)? *$")
_FENCES = ("```", "~~~")


class Files(source.Source):
    """The files of a folder and of the folders in it, or one file.

    Hidden files and folders are left out, and so are links to folders (a loop of them would never end). A key is the
    path below the folder, with ``/``. What cannot be read is rejected; a folder that cannot be listed is an error, for
    its documents would look deleted.
    """

    def __init__(self, path: Path, fields: Fields) -> None:
        super().__init__(path.name or path.absolute().name, path, fields, total_bytes=None)
        source.require(fields, FIELDS, self.label)
        found = 0
        self.total_bytes = 0
        for _, file in self._walk():
            found += 1
            self.total_bytes += _size(file)
        if not found:
            raise errors.SourceUnreadable(f"{self.label} has no files that can be read: {', '.join(SUFFIXES)}")

    def _documents(self) -> Iterator[Document | Rejected]:
        fields = source.settle_key(self.fields, FIELDS)
        for key, file in self._walk():
            self._last = (streams.printable(key), None)
            try:
                yield documents.from_row(self._row(key, file), fields)
            except InvalidRow as exc:
                known = exc.key or documents.find_key({"key": key, "path": key}, fields)
                yield Rejected(streams.printable(key), None, exc.reason, known)

    def _row(self, key: str, file: str) -> dict[str, Any]:
        kind = text_format(file) or "txt"
        if streams.printable(key) != key:
            raise InvalidRow("its name is not UTF-8")
        text = self._content(file, MAX_PAGE_BYTES if kind == "html" else streams.MAX_BYTES)
        title = None
        if kind == "html":
            if "\0" in text:  # which the parser would replace
                raise InvalidRow("NUL in field 'text'")
            title, text = hypertext.read_html(text)
        elif kind == "md":
            title = find_heading(text)
        return {"key": key, "title": title, "text": text, "path": key, "format": kind}

    def _content(self, file: str, limit: int) -> str:
        try:
            if not stat.S_ISREG(Path(file).stat().st_mode):  # to open a pipe would wait for ever
                raise InvalidRow("not a regular file")
            with streams.open_stream(Path(file), self.advance) as stream:
                content = stream.read(limit + 1)
        except streams.UNREADABLE as exc:
            raise InvalidRow(f"cannot be read: {streams.explain(exc)}") from exc
        if len(content) > limit:
            raise InvalidRow(f"a file of more than {limit // 2**20} MB")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            raise InvalidRow(streams.explain_encoding(exc)) from exc

    def _walk(self) -> Iterator[tuple[str, str]]:
        """Yield every file's key and path, in the order of the names, folder by folder."""
        root = os.fspath(self.path or "")
        if not Path(root).is_dir():
            yield self.name, root
            return
        waiting = _list(root)
        while waiting:
            entry = waiting.pop()
            if entry.is_dir(follow_symlinks=False):
                waiting += _list(entry.path)
            elif text_format(entry.name):
                yield os.path.relpath(entry.path, root).replace(os.sep, "/"), entry.path


def _list(folder: str) -> list[os.DirEntry[str]]:
    """List what is not hidden in a folder, last name first."""
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(seen, key=lambda entry: entry.name, reverse=True)


def _size(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except OSError:
        return 0


def text_format(name: str) -> str | None:
    """Say which of the formats a file's name stands for; None for any other.

    >>> text_format("a/Notes.MD.gz")
    'md'
    """
    return SUFFIXES.get(PurePath(name.lower().removesuffix(".gz")).suffix)


def find_heading(text: str) -> str | None:
    """Return the first heading of the first level in Markdown, code left out; None without one.

    >>> find_heading("Preface\\n\\n# Shoes #\\n")
    'Shoes'
    """
    fence: str | None = None
    for line in text.splitlines():
        start = line.lstrip(" ")[:3]
        if start in _FENCES and fence in (None, start):
            fence = None if fence else start
        elif fence is None and (heading := _HEADING.match(line)) and heading[1]:
            return heading[1]
    return None
