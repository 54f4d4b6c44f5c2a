"""Every exception that searchapp raises on purpose.

SearchAppError
├── InvalidInput                 the call itself is wrong: nothing was read, nothing was written
│   ├── InvalidCursor            a cursor of another question, of a former space, or broken
│   ├── InvalidFilter            a filter with an unknown operator, a value of a wrong type, broken JSON
│   ├── InvalidName              a collection's name that is not allowed
│   └── SourceUnreadable         no such file, an unknown format, a folder without readable files
├── RowRejected                  one row of a source is faulty (``--strict``); carries its place and the reason
├── PruneRefused                 a prune would delete over half of a collection; carries the summary of what was done
├── CollectionMissing            no such collection; names the near ones
├── CollectionExists             a collection of that name is there already
├── CollectionFed                the collection is kept in step with a table, and takes no other writes
├── CollectionMismatch           other chunking, or another model, than the collection was made with
├── NotMeasurable                recall cannot be measured: no index, fewer than two documents, or they change
├── RecallNotReached             the index finds less, however it is asked; carries what was measured
├── PackageMissing               an optional package is not installed; names the command that installs it
├── ModelMissing                 the model's weights are neither installed, nor a folder, nor to be had
├── ModelCorrupted               the weights on disk are not the published ones
├── ModelMismatch                vectors of another dimension than the space's
└── DatabaseError                whatever PostgreSQL or the way to it objects to
    ├── DatabaseUnavailable      nobody answers, or it went away
    ├── AuthenticationFailed     wrong user or password
    ├── DatabaseMissing          the server has no database of that name
    ├── DatabaseTooOld           PostgreSQL or pgvector is older than searchapp needs
    ├── ExtensionMissing         pgvector is not installed, or may not be created by this role
    ├── NotMigrated              the tables are absent or of an earlier version
    ├── DatabaseTooNew           a newer searchapp migrated this database
    ├── PermissionDenied         the role lacks a right
    ├── LockNotAvailable         somebody held a lock for longer than we wait
    ├── QueryCanceled            a statement ran over its time, or somebody canceled it
    ├── DiskFull                 the server has no room left; what was committed stays
    └── EmbeddedServerError      the embedded server cannot be set up or started

Messages are one line: what was expected, what came, what to do next.
"""

from __future__ import annotations

from typing import Any


class SearchAppError(Exception):
    """Base of all of searchapp's exceptions."""


class InvalidInput(SearchAppError):
    """The call is wrong; nothing was read or written."""


class InvalidCursor(InvalidInput):
    """A cursor that is not of this search, or of a space that is no longer asked."""


class InvalidFilter(InvalidInput):
    """A filter that cannot be understood."""


class InvalidName(InvalidInput):
    """A collection's name that is not allowed."""


class SourceUnreadable(InvalidInput):
    """A file or folder that cannot be read as documents."""


class RowRejected(SearchAppError):
    """One faulty row of a source.

    :param place: where the row stands, such as ``articles.jsonl:17``.
    :param reason: what is wrong with it.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class PruneRefused(SearchAppError):
    """A prune would delete over half of a collection.

    :param summary: what the ingest did before.
    """

    def __init__(self, message: str, summary: Any) -> None:
        super().__init__(message)
        self.summary = summary


class CollectionMissing(SearchAppError):
    """No such collection."""


class CollectionExists(SearchAppError):
    """A collection of that name is there already."""


class CollectionFed(SearchAppError):
    """A source keeps the collection in step with a table; it takes no other writes."""


class CollectionMismatch(SearchAppError):
    """Other chunking or another model than the collection's."""


class DocumentMissing(SearchAppError):
    """No such document in the collection."""


class WordsMissing(SearchAppError):
    """The collection was made without words, so that it cannot be searched by them."""


class RunMissing(SearchAppError):
    """No such run of an evaluation."""


class NotMeasurable(SearchAppError):
    """The recall of a collection cannot be measured now."""


class RecallNotReached(SearchAppError):
    """No setting of the index reaches a recall.

    :param measured: what was measured.
    """

    def __init__(self, message: str, measured: Any) -> None:
        super().__init__(message)
        self.measured = measured


class PackageMissing(SearchAppError):
    """An optional package is not installed."""


class ModelMissing(SearchAppError):
    """The model cannot be found."""


class ModelCorrupted(SearchAppError):
    """The weights on disk are not the published ones."""


class ModelMismatch(SearchAppError):
    """Vectors of another dimension than the space's."""


class DatabaseError(SearchAppError):
    """What PostgreSQL, or the way to it, objects to."""


class DatabaseUnavailable(DatabaseError):
    """Nobody answers at the database's address, or it went away."""


class AuthenticationFailed(DatabaseError):
    """Wrong user or password."""


class DatabaseMissing(DatabaseError):
    """The server has no database of that name."""


class DatabaseTooOld(DatabaseError):
    """PostgreSQL or pgvector is older than searchapp needs."""


class ExtensionMissing(DatabaseError):
    """pgvector is not installed, or this role may not create it."""


class NotMigrated(DatabaseError):
    """The tables are absent, or of an earlier version."""


class DatabaseTooNew(DatabaseError):
    """A newer searchapp migrated this database."""


class PermissionDenied(DatabaseError):
    """The role lacks a right.

    :param reason: what PostgreSQL said, where one of our roles has that right; None: the message says all.
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class LockNotAvailable(DatabaseError):
    """Somebody held a lock for longer than we wait."""


class QueryCanceled(DatabaseError):
    """The database ended a statement: it ran over its time, or somebody canceled it."""


class DiskFull(DatabaseError):
    """The server has no room left on its disk."""


class EmbeddedServerError(DatabaseError):
    """The embedded server cannot be set up or started."""


def in_a_line(exc: Exception) -> str:
    """What an exception says, in one line: its kind before it, where that is none of ours."""
    words = " ".join(str(exc).split())
    return words if isinstance(exc, SearchAppError) and words else f"{type(exc).__name__}: {words}"
