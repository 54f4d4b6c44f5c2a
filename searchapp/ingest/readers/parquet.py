"""Parquet, read in small batches and only in the columns that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from searchapp import errors, values
from searchapp.ingest import documents
from searchapp.ingest.documents import Document, Fields, Rejected
from searchapp.ingest.readers import source, streams

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch
    from pyarrow.parquet import ParquetFile

# A batch holds so many bytes by the file's own account, and no more than so many rows, for a dictionary hides how large
# its values are. Without a buffer pyarrow reads a column chunk whole: 1,138 MB resident for one of 1 GB, 178 with it.
_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 256
_BUFFER_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class _Faulty:
    """A row with a value that Python has none for: why, and the row's other values."""

    reason: str
    rest: dict[str, Any]


class Parquet(source.Source):
    """A Parquet file. Its rows count as lines, from 1; ``position`` is the share of them that was read."""

    def _documents(self) -> Iterator[Document | Rejected]:
        with _translated(self.label), self._open() as file:
            header = file.schema_arrow.names
            source.check_header(header, self.label)
            source.require(self.fields, header, self.label)
            fields = source.settle_key(self.fields, header)
            done = 0
            for batch in _batches(file, _columns(fields, header)):
                for number, row in enumerate(_rows(batch), start=done + 1):
                    yield self._read(number, row, fields)
                done += batch.num_rows
                self.position = (self.total_bytes or 0) * done // file.metadata.num_rows

    @contextmanager
    def _open(self) -> Iterator[ParquetFile]:
        from pyarrow.parquet import ParquetFile

        assert self.path is not None  # standard input is JSONL
        with self.path.open("rb") as stream:  # a Python file: pyarrow opens no path that is not UTF-8
            yield ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES)

    def _read(self, number: int, row: dict[str, Any] | _Faulty, fields: Fields) -> Document | Rejected:
        if isinstance(row, _Faulty):
            return self._rejected(number, row.reason, documents.find_key(row.rest, fields))
        return self._document(number, row, fields)


@contextmanager
def _translated(label: str) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except ArrowException as exc:
        raise errors.SourceUnreadable(f"cannot read {label}: {streams.explain(exc)}") from exc


def _columns(fields: Fields, header: Sequence[str]) -> list[str] | None:
    """List the columns that are needed; None for all of them."""
    if fields.metadata is None:
        return None
    needed = {fields.key, documents.title_field(fields), fields.embedding, *fields.metadata}
    needed |= {*(fields.text or documents.DEFAULT_TEXT)}
    return [name for name in header if name in needed]


def _batches(file: ParquetFile, columns: list[str] | None) -> Iterator[RecordBatch]:
    for group in range(file.num_row_groups):
        rows = _batch_rows(file, group, columns)
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=columns):
            yield _readable(batch)


def _batch_rows(file: ParquetFile, group: int, columns: list[str] | None) -> int:
    """Say how many rows of a row group make a batch."""
    metadata = file.metadata.row_group(group)
    chunks = [metadata.column(index) for index in range(metadata.num_columns)]
    size = sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if columns is None or chunk.path_in_schema.split(".")[0] in columns
    )
    return int(min(max(_BATCH_BYTES * metadata.num_rows // max(size, 1), 1), _BATCH_ROWS))


def _rows(batch: RecordBatch) -> Iterator[dict[str, Any] | _Faulty]:
    try:
        rows = batch.to_pylist(maps_as_pydicts="strict")
    except Exception:  # pyarrow's, Python's date and time's, the time zone's, UTF-8's: one value spoils the batch
        for number in range(batch.num_rows):
            yield _row(batch, number)
    else:
        yield from rows


def _row(batch: RecordBatch, number: int) -> dict[str, Any] | _Faulty:
    row: dict[str, Any] = {}
    reason = None
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column.slice(number, 1).to_pylist(maps_as_pydicts="strict")[0]
        except Exception as exc:  # as above
            reason = reason or f"{values.quote(name)} cannot be read: {streams.explain(exc)}"
    return row if reason is None else _Faulty(reason, row)


def _readable(batch: RecordBatch) -> RecordBatch:
    """The same batch with times in microseconds: pyarrow makes no Python value of nanoseconds without pandas."""
    import pyarrow as pa

    schema = pa.schema([field.with_type(_microseconds(field.type)) for field in batch.schema])
    return batch if schema == batch.schema else batch.cast(schema, safe=False)


def _microseconds(kind: DataType) -> DataType:
    import pyarrow as pa

    if getattr(kind, "unit", None) == "ns":
        if pa.types.is_timestamp(kind):
            return pa.timestamp("us", kind.tz)
        return pa.time64("us") if pa.types.is_time(kind) else pa.duration("us")
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_microseconds(field.type)) for field in kind.fields])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _microseconds(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_microseconds(kind.value_type), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(_microseconds(kind.value_type))
    return pa.list_(_microseconds(kind.value_type)) if pa.types.is_list(kind) else kind
