"""The rungs that every statement for the nearest is made of: it never gives fewer rows than asked for.

The statement carries its own settings and its own exact rungs: an approximate scan of the HNSW index, where hits have
several rows a wider one, and an exact scan that runs only where the rungs before it gave fewer hits than asked for. So
it never returns fewer than ``limit`` hits when that many match, in whatever session it runs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    String,
    Subquery,
    and_,
    distinct,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import distinct_on

from searchapp.wire import literally

# hnsw.ef_search goes no further.
MAX_EF_SEARCH = 1000
# The first rung fetches at least so many, and so many more than asked for.
LEAST_FETCHED = 20
FETCHED_BEYOND = 10
# The planner takes an iterative scan for far cheaper than it is; a LIMIT of 80 times what is asked makes it answer
# filters that keep up to some 5,000 of 60,000 documents by the filter first, so exactly (docs/discussions.md).
PLANNER_FACTOR = 80
# Among the candidates stand those that the filter leaves out; so a filtered scan keeps so many times more.
FILTERED_EF_SEARCH = 1.5
# To fetch a fifteenth of all rows, one by one, takes the index as long as comparing with all; and it misses more.
EXACT_FROM = 15


class Scan(ABC):
    """What is scanned. Its CTEs are anonymous, so two such statements can stand in one.

    :param vector: what the rows are compared with.
    :param filtered: whether a condition leaves rows out.
    :param keys: the columns of a row that say whose it is; a hit may have several rows where there is just one.
    :param carried: what else of a row a hit shows.
    :param ef_search: the least that the index is asked with.
    :param rows_per_hit: how many rows a hit has, on average.
    """

    def __init__(
        self,
        vector: ColumnElement[Any],
        *,
        filtered: bool,
        keys: tuple[str, ...],
        carried: tuple[str, ...] = (),
        several: bool,
        ef_search: int,
        rows_per_hit: float = 1.0,
    ) -> None:
        self.vector = vector
        self.filtered = filtered
        self.keys = keys
        self.carried = carried
        self.several = several
        self.ef_search = ef_search
        self.rows_per_hit = rows_per_hit
        self.ctes: list[CTE] = []

    @abstractmethod
    def rows(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """The rows that may be hits: ``keys``, ``carried`` and these columns."""

    @abstractmethod
    def distance(self) -> ColumnElement[float]:
        """The distance, written so that the HNSW index is found by it."""

    def exact_distance(self) -> ColumnElement[float]:
        """The distance, written so that no index is used."""
        return (self.distance() + literal_column("0")).label("distance")

    def once(self, statement: Select[Any]) -> CTE:
        """A part that is run once, at most."""
        self.ctes.append(statement.cte().prefix_with("MATERIALIZED"))
        return self.ctes[-1]

    def wanted(self, limit: int) -> int:
        """How many rows ``limit`` hits have, by the statistics."""
        return math.ceil(limit * self.rows_per_hit)

    def fetched(self, limit: int) -> int:
        """How many rows surely hold ``limit`` hits, in the usual run of things."""
        return rows_fetched(self.wanted(limit), filtered=self.filtered)

    def by_index(self, setting: CTE, wanted: int, fetch: int) -> CTE:
        """A rung: up to ``fetch`` rows, of which ``wanted`` are needed, by the HNSW index under ``setting``."""
        distance = self.distance()
        planned = max(wanted * PLANNER_FACTOR, fetch) if self.filtered else fetch
        # beside a LATERAL the inner LIMIT is what the planner sees; the outer one ends the lazy scan early
        scan = (
            self.rows(distance.label("distance"))
            .where(setting.c.v.is_not(None))
            .order_by(distance)
            .limit(literally(planned))
            .lateral()
        )
        return self.once(
            select(*(scan.c[name] for name in self.names))
            .select_from(setting.join(scan, true()))
            .limit(literally(fetch))
        )

    def by_sorting(self, fetch: int) -> CTE:
        """A rung: the nearest ``fetch`` rows by a scan of all, which keeps no more than these."""
        distance = self.exact_distance()
        return self.once(self.rows(distance).order_by(distance).limit(literally(fetch)))

    def of_everything(self, unless: ColumnElement[bool]) -> Select[Any]:
        """The last rung: the nearest row of every hit."""
        return self.best(self.rows(self.exact_distance()).where(not_(unless)).subquery(), exact=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of a rung."""
        return (*self.keys, *self.carried, "distance")

    def best(self, rung: CTE | Subquery, *, exact: bool, condition: ColumnElement[bool] | None = None) -> Select[Any]:
        """The nearest row of every hit in a rung."""
        best = select(*(rung.c[name] for name in self.names))
        if self.several:
            keys = [rung.c[name] for name in self.keys]
            best = best.ext(distinct_on(*keys)).order_by(
                *keys, rung.c.distance, *(rung.c[name] for name in self.carried[:1])
            )
        found = (best if condition is None else best.where(condition)).subquery()
        return select(*found.c, (true() if exact else false()).label("exact"))

    def count(self, rung: CTE) -> Any:
        """How many hits a rung has."""
        return func.count(distinct(rung.c[self.keys[0]])) if self.several else func.count(rung.c.distance)


def rows_fetched(wanted: int, *, filtered: bool) -> int:
    """How many rows the first rung fetches where ``wanted`` are needed; the index is asked with no less.

    >>> rows_fetched(10, filtered=False), rows_fetched(10, filtered=True)
    (20, 30)
    """
    return max(LEAST_FETCHED, (2 if filtered else 1) * wanted + FETCHED_BEYOND)


def exact_is_as_fast(wanted: int, rows: float, *, filtered: bool) -> bool:
    """Whether so much is asked for that the index saves no time.

    :param rows: how many there are; 0: it is not known.

    >>> exact_is_as_fast(10, 60_000, filtered=False), exact_is_as_fast(5000, 60_000, filtered=False)
    (False, True)
    """
    return rows > 0 and rows_fetched(wanted, filtered=filtered) * EXACT_FROM >= rows


def approximately(scan: Scan, limit: int) -> Subquery:
    """The rungs: each runs only where those before it gave too few documents."""
    fetch = scan.fetched(limit)
    first = first_rung(scan, limit)
    enough = _enough(scan, first, limit)
    parts = [scan.best(first, exact=False, condition=enough)]
    if scan.rows_per_hit > 1 and fetch < MAX_EF_SEARCH:
        wide = wide_rung(scan, unless=enough)
        enough_by_wide = _enough(scan, wide, limit)
        parts.append(scan.best(wide, exact=False, condition=and_(enough_by_wide, not_(enough))))
        enough = or_(enough, enough_by_wide)
    return union_all(*parts, scan.of_everything(unless=enough)).subquery()


def first_rung(scan: Scan, limit: int) -> CTE:
    """The rows by the index that surely hold ``limit`` hits, in the usual run of things."""
    fetch = scan.fetched(limit)
    return scan.by_index(_setting(scan, min(fetch, MAX_EF_SEARCH)), scan.wanted(limit), fetch)


def wide_rung(scan: Scan, *, unless: ColumnElement[bool]) -> CTE:
    """As many rows by the index as it gives."""
    return scan.by_index(_setting(scan, MAX_EF_SEARCH, when=not_(unless)), MAX_EF_SEARCH // 2, MAX_EF_SEARCH)


def exactly(scan: Scan, limit: int) -> Subquery:
    """The rungs of an exact answer: the nearest chunks, and where these are too few documents, all."""
    fetch = scan.fetched(limit)
    first = scan.by_sorting(fetch)
    enough = _enough(scan, first, limit, or_fewer_than=fetch)
    return union_all(scan.best(first, exact=True, condition=enough), scan.of_everything(unless=enough)).subquery()


def _setting(scan: Scan, ef_search: int, *, when: ColumnElement[bool] | None = None) -> CTE:
    """The settings of a rung, made when it is run and undone with the transaction.

    They hang on the vector, so that where it is a column they are made again for each: a wider rung may have run.
    """
    iterative = "relaxed_order" if scan.filtered or ef_search >= MAX_EF_SEARCH else "off"
    least = min(scan.ef_search * FILTERED_EF_SEARCH, MAX_EF_SEARCH) if scan.filtered else scan.ef_search
    ef_search = max(ef_search, math.ceil(least))
    value = _set("hnsw.ef_search", str(ef_search)).op("||")(_set("hnsw.iterative_scan", iterative))
    statement = select(value.label("v")).where(scan.vector.is_not(None))
    return scan.once(statement if when is None else statement.where(when))


def _set(name: str, value: str) -> ColumnElement[str]:
    return func.set_config(literally(name), literally(value), true(), type_=String)


def _enough(scan: Scan, rung: CTE, limit: int, *, or_fewer_than: int | None = None) -> ColumnElement[bool]:
    """Whether a rung gave enough documents that are nearer than the last chunk it gave.

    Where the last chunks are all equally far, the scan may be stuck among equal vectors, which hide nearer ones;
    and perhaps it has not seen all that are equal, of which the first by key are to be taken.

    :param or_fewer_than: an exact scan that gave fewer chunks than this has given all there are.
    """
    last = select(func.max(rung.c.distance)).scalar_subquery()
    enough = scan.count(rung).filter(rung.c.distance < last) >= literally(limit)
    if or_fewer_than is not None:
        enough = or_(enough, func.count() < literally(or_fewer_than))
    answer = scan.once(select(enough.label("yes")).select_from(rung))
    return select(answer.c.yes).scalar_subquery()
