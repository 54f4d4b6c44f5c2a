"""``searchapp ingest``."""

from __future__ import annotations

import dataclasses
import json as json_module
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

import searchapp
from searchapp import errors
from searchapp.cli import options, output
from searchapp.ingest.documents import Fields, Rejected
from searchapp.ingest.ingestion import Progress, Summary
from searchapp.ingest.readers import Source, open_source

logger = logging.getLogger("searchapp")


def ingest(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A JSONL, CSV, TSV or Parquet file, a folder of .txt, .md and .html, or - for JSONL.",
        ),
    ],
    collection: options.Collection,
    key: Annotated[
        str | None, typer.Option("--key", metavar="F", help="The field that is the key. Default: id, _id or key.")
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", metavar="F", help="The field that is the title. Default: title.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="F,F", help="The fields that are the text. Default: text.")
    ] = None,
    metadata: Annotated[
        str | None,
        typer.Option("--metadata", metavar="F,F", help="The fields kept as metadata. Default: all the others."),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            "--vectors",
            metavar="FILE.npy",
            help="Embeddings that are there already: row i is of the source's row i. Needs --model.",
        ),
    ] = None,
    vector: Annotated[
        str | None,
        typer.Option("--vector", metavar="F", help="The field that is the row's own embedding. Needs --model."),
    ] = None,
    model: options.Model = None,
    chunk_tokens: options.ChunkTokens = None,
    no_chunking: options.NoChunking = False,
    language: options.Language = None,
    no_words: options.NoWords = False,
    prune: Annotated[bool, typer.Option("--prune", help="Then delete every document that the source lacks.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Prune even more than half of the collection.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first faulty row.")] = False,
    json: options.Json = False,
) -> None:
    """Put documents into a collection, made where it is absent. Unchanged ones are not encoded again."""
    tokens = options.chunk_tokens(chunk_tokens, no_chunking)
    fields = Fields(key=key, title=title, text=_names(text) or (), metadata=_names(metadata), embedding=vector)
    opened = open_source(source, fields)
    if vectors is not None or vector is not None:
        _check_embedded(vectors, vector, model, tokens)
    given = None if vectors is None else _read_vectors(vectors, opened)
    rejects = RejectFile(opened.name)
    try:
        with ExitStack() as stack:
            db = stack.enter_context(searchapp.connect())
            stack.enter_context(rejects)
            show = stack.enter_context(progress_bar(opened.total_bytes, lambda _: opened.position))
            if vectors is None and vector is None:
                put = partial(db.ingest, opened, model=model, chunk_tokens=tokens)
            else:
                put = partial(db.load_vectors, opened, given, model=model or "")
            put = partial(put, language=language, words=False if no_words else None)
            on_rejected = None if strict else rejects.write
            summary = put(collection=collection, prune=prune, yes=yes, on_rejected=on_rejected, on_progress=show)
    except errors.PruneRefused as exc:
        report(exc.summary, rejects.path, json)
        raise
    report(summary, rejects.path, json)
    if summary.not_pruned:
        logger.warning("nothing was pruned: %s; mend these rows and ingest again", summary.not_pruned)


def _check_embedded(vectors: Path | None, vector: str | None, model: str | None, tokens: int | None) -> None:
    """Check what goes with embeddings that are there already.

    :raises errors.InvalidInput: it does not.
    """
    if vectors is not None and vector is not None:
        raise errors.InvalidInput("give --vectors or --vector, not both")
    if model is None:
        raise errors.InvalidInput("say which model the vectors came from: --model NAME")
    if tokens:
        raise errors.InvalidInput("--chunk-tokens cuts texts to encode them; a vector stands for a whole document")


def read_array(path: Path) -> npt.NDArray[Any]:
    """Open a file of vectors, which is not read into memory.

    :raises errors.InvalidInput: it cannot be read.
    """
    try:
        with path.open("rb") as file:  # np.load would take a packed archive of arrays, too
            np.lib.format.read_magic(file)
        vectors: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or (str(exc).splitlines() or ["damaged"])[0]
        raise errors.InvalidInput(f"{path} cannot be read as an array of numbers (.npy): {reason}") from exc
    return vectors


def _read_vectors(path: Path, source: Source) -> npt.NDArray[Any]:
    """The same, of as many rows as the source has.

    :raises errors.InvalidInput: it cannot be read, or has others.
    """
    vectors = read_array(path)
    if source.path is not None and vectors.ndim == 2:
        rows = sum(1 for _ in source)
        if rows != len(vectors):
            raise errors.InvalidInput(f"{path} has {len(vectors):,} rows, {source.label} {rows:,}; expected as many")
    return vectors


class RejectFile:
    """The file that faulty rows go into, made with the first of them in the working folder, or else a temporary one.

    :param source: the source's name; its reject file is called ``<source>.rejected.jsonl``.
    """

    def __init__(self, source: str) -> None:
        self.path: Path | None = None
        self._name = f"{Path(source).name or 'source'}.rejected.jsonl"
        self._file: IO[str] | None = None

    def __enter__(self) -> RejectFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            if kind is not None:  # no summary will name it
                logger.info("the faulty rows so far are in %s", self.path)

    def write(self, row: Rejected) -> None:
        """Write one faulty row: its place, line number, reason and key."""
        if self._file is None:
            self._file = self._open()
        self._file.write(json_module.dumps(dataclasses.asdict(row), ensure_ascii=True) + "\n")

    def _open(self) -> IO[str]:
        self.path = Path(self._name).absolute()
        try:
            return self.path.open("w", encoding="utf-8")
        except OSError:
            self.path = Path(tempfile.mkdtemp(prefix="searchapp-")) / self._name
            return self.path.open("w", encoding="utf-8")


@contextmanager
def progress_bar(
    total: int | None, position: Callable[[Progress], int], doing: str = "ingesting"
) -> Iterator[Callable[[Progress], None] | None]:
    """A progress bar with rate and time left on a terminal; nothing in a pipe.

    :param total: where ``position`` ends, in whatever it counts; None where nobody knows.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[documents]:,} documents, {task.fields[rate]:,.0f}/s"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(doing, total=total, documents=0, rate=0.0)

        def show(made: Progress) -> None:
            if made.indexing:
                bar.update(task, description="building the index", total=1, completed=made.indexed)
                return
            elapsed = bar.tasks[0].elapsed or 0
            rate = made.documents / elapsed if elapsed else 0.0
            bar.update(task, completed=position(made), documents=made.documents, rate=rate)

        yield show


def report(summary: Summary, reject_file: Path | None, as_json: bool) -> None:
    """Print what an ingest did."""
    if as_json:
        values = dataclasses.asdict(summary) | {"reject_file": reject_file and str(reject_file)}
        output.print_json({name: value for name, value in values.items() if value is not None})
        return
    written, chunks = output.counted(summary.documents, "document"), output.counted(summary.chunks, "chunk")
    parts = [f"{written} ({chunks})", f"{summary.unchanged:,} unchanged"]
    if summary.pruned:
        parts.append(f"{summary.pruned:,} pruned")
    if summary.rejected:
        parts.append(f"{summary.rejected:,} rejected (see {reject_file})")
    print(f"ingested {', '.join(parts)} in {summary.seconds:.1f} s")


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())
