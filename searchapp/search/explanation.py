"""What an explanation of a search says."""

from __future__ import annotations

from dataclasses import dataclass

from searchapp.search.request import VECTOR

# The rungs, by the one that gave the answer.
FIRST = "first"
WIDER = "wider"
FILTER = "filter"
EXACT = "exact"
WORDS = "words"


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds spent in encoding the query, in the database (planning and running, as the server says), and in the
    rest of a round trip: sending the query and the hits, and reading them.
    """

    encode: float
    database: float
    fetch: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a search was answered; as a string, lines for people.

    :param mode: as of ``Hits``.
    :param rung: what gave the answer. ``first``: the HNSW index. ``wider``: the HNSW index, asked again for more.
        ``filter``: the filter came first, and all that it keeps was compared, so the answer is exact, though
        ``Hits.exact`` cannot know it. ``exact``: all passages were compared, or all that the filter keeps. ``words``:
        the best that have some of the query's words, exactly. Of a hybrid it is what gave the candidates that are near;
        those by words are always exact.
    :param index: the index that found what was compared; None: there was none, everything was read.
    :param ef_search: how many candidates the HNSW index kept; None where it did not give the answer.
    :param passages_scanned, documents_scanned: rows read by all rungs that were run; the documents for the filter
        alone, without those that are shown.
    :param postings_scanned: entries read that say which document has a word of the query; what is read twice counts
        twice.
    :param advice: what can be done, a sentence each; empty where there is nothing to say.
    :param plan: the server's own words: what EXPLAIN ANALYZE says, the vectors left out.
    """

    mode: str
    rung: str
    index: str | None
    ef_search: int | None
    passages_scanned: int
    documents_scanned: int
    postings_scanned: int
    hits: int
    took_ms: Times
    advice: tuple[str, ...]
    plan: str

    @property
    def exact(self) -> bool:
        """Whether the answer is exact."""
        return self.rung in {FILTER, EXACT, WORDS}

    @property
    def rows_scanned(self) -> int:
        """Passages, documents and postings read."""
        return self.passages_scanned + self.documents_scanned + self.postings_scanned

    def __str__(self) -> str:
        took = self.took_ms
        read = counted(self.passages_scanned, "passage")
        if self.documents_scanned:
            read += f", and {counted(self.documents_scanned, 'document')} for the filter"
        if self.mode != VECTOR:
            read += f"; {counted(self.postings_scanned, 'posting')}"
        mode = "" if self.mode == VECTOR else f" in the mode {self.mode}"
        lines = [
            f"answer   {counted(self.hits, 'hit')}{mode}, {self._way()}",
            f"read     {read}",
            f"took     encode {took.encode:.1f} ms, database {took.database:.1f} ms, fetch {took.fetch:.1f} ms",
        ]
        return "\n".join([*lines, *(f"advice   {each}" for each in self.advice)])

    def _way(self) -> str:
        if self.rung == WORDS:
            return f"exact: by its words, found by the index {self.index}"
        if not self.exact:
            return f"approximate, by the index {self.index} ({self.rung} rung, ef_search {self.ef_search})"
        found = "" if self.index is None else f", found by the index {self.index}"
        if self.rung == FILTER:
            return f"exact: the filter came first{found}"
        kept = "all that the filter keeps" if self.documents_scanned else "all passages"
        return f"exact: compared with {kept}{found}"


def counted(number: int, noun: str) -> str:
    """
    >>> counted(0, "hit"), counted(1, "hit"), counted(1200, "passage")
    ('no hits', '1 hit', '1,200 passages')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}" if number else f"no {noun}s"
