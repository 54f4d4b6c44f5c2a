"""What a search returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_type_hints, overload

from searchapp import errors

if TYPE_CHECKING:
    import pandas as pd


class Passage(NamedTuple):
    """A passage of a document: its number and where it starts in the text, in characters, both from 0; the text itself,
    and how far it is."""

    position: int
    start: int
    text: str
    distance: float


class Hit(NamedTuple):  # five times as fast to make as a frozen dataclass
    """One document found.

    ``passage`` is the piece of its text that is nearest, or has most of the words; ``score`` says how good it is,
    larger is better. ``vector_score``, which is 1 - ``distance``, and ``text_score``, which is BM25, say what meaning
    and words gave it: ``score`` is the one of a search by that alone, and both of them fused in a hybrid; where hits
    were reranked it is ``rerank_score``, the logit of a cross-encoder, any number. ``distance`` is cosine distance,
    0 to 2. None is what was not asked for, or the distance of a document without a chunk.
    ``highlights`` are where words of the query stand in ``passage``: pairs of start and end; only where these were
    asked for. ``passages`` are the nearest of the document, nearest first; only where several were asked for.
    """

    key: str
    title: str | None
    passage: str
    score: float
    distance: float | None
    metadata: dict[str, Any]
    vector_score: float | None = None
    text_score: float | None = None
    rerank_score: float | None = None
    highlights: tuple[tuple[int, int], ...] = ()
    passages: tuple[Passage, ...] = ()


class FacetCount(NamedTuple):
    """How many documents have a value in a field."""

    value: str | float | bool
    documents: int


@dataclass(frozen=True, slots=True)
class Facets(Sequence[FacetCount]):
    """The values of a field, the most frequent first.

    ``first`` says what was counted: the first so many hits of a search, or None: all that the filter matches.
    """

    field: str
    counts: tuple[FacetCount, ...]
    first: int | None

    @overload
    def __getitem__(self, index: int) -> FacetCount: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[FacetCount]: ...
    def __getitem__(self, index: int | slice) -> FacetCount | Sequence[FacetCount]:
        return self.counts[index]

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[FacetCount]:
        return iter(self.counts)


class Group(NamedTuple):
    """The hits that have one value in a field, nearest first."""

    value: str | float | bool
    hits: tuple[Hit, ...]


# Of hits as a table of any kind.
COLUMNS = tuple(name for name in Hit._fields if name not in {"highlights", "passages"})


@dataclass(frozen=True, slots=True)
class Took:
    """Milliseconds spent in encoding the query, in the database, the way there included, and in reranking."""

    encode: float
    database: float
    rerank: float = 0.0


@dataclass(frozen=True, slots=True)
class Hits(Sequence[Hit]):
    """The hits of one search, best first.

    ``mode`` says how the question was asked: ``vector``, ``text`` or ``hybrid``. ``exact`` says whether the answer came
    from a scan of everything; ``complete`` is false while documents lack what is asked: their chunks in the space, or
    their words. ``cursor`` asks for the next page, which begins behind the last hit: there is one where the page is
    full and, in the mode ``vector``, the answer was asked exactly; never one of hits that were reranked.
    ``group_values`` says of each hit whose group it is in, where these were asked for.
    """

    hits: tuple[Hit, ...]
    mode: str
    exact: bool
    complete: bool
    took_ms: Took
    cursor: str | None = None
    group_values: tuple[Any, ...] = ()

    @property
    def groups(self) -> tuple[Group, ...]:
        """The hits by the values of a field, the nearest group first; only where these were asked for."""
        # 1 and 1.0 are one value in jsonb; 1 and true are one in Python alone
        pairs = groupby(
            zip(self.group_values, self.hits, strict=False), key=lambda pair: (isinstance(pair[0], bool), pair[0])
        )
        return tuple(Group(value, tuple(hit for _, hit in members)) for (_, value), members in pairs)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def _repr_html_(self) -> str:
        """The hits as a table in a notebook."""
        from searchapp.search import hits_html

        return hits_html.table(self)

    def to_pandas(self) -> pd.DataFrame:
        """The hits as a pandas DataFrame, a row each; its columns are a hit's fields but ``highlights``.

        :raises errors.PackageMissing: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as exc:
            raise errors.PackageMissing("pandas is not installed: pip install pandas") from exc
        frame = pd.DataFrame([[getattr(hit, name) for name in COLUMNS] for hit in self], columns=list(COLUMNS))
        # Numbers even where all of a column are None, as the scores of what was not asked for.
        hints = get_type_hints(Hit)
        return frame.astype({name: "float64" for name in COLUMNS if float in (hints[name], *get_args(hints[name]))})
