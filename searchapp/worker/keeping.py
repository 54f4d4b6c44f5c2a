"""Keeping sources in step: rounds of looking what has changed, taking some of it, encoding and writing."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import psycopg
import sqlalchemy.exc
from sqlalchemy import Engine

from searchapp import database, errors
from searchapp.encoders import Encoder
from searchapp.encoders.registry import Registry
from searchapp.sources import backfill, batch, catalog, failures, log, targets
from searchapp.sources.catalog import Source
from searchapp.sources.columns import ColumnUnfit
from searchapp.sources.session import Session, open_session
from searchapp.sources.writing import Target
from searchapp.worker.encoding import Known, Loading, QueriesFirst, StillLoading, YieldingEncoder
from searchapp.worker.refreshing import Refreshing
from searchapp.worker.watching import Watch

logger = logging.getLogger("searchapp")

POLL_SECONDS = 0.2
# A look that takes long, for somebody's open transaction keeps what was deleted, comes the more rarely.
LOOKS_SHARE = 20
# Between looks for rows that are to be tried again, and for first readings to go on with.
CHORES_SECONDS = 1.0
# Between looks whether tables are as their sources need them, where nothing is read of them.
EXPLAIN_SECONDS = 10.0
# So long a source is left alone whose table is locked, at first and at most, whose model cannot be had, or is
# being loaded.
LOCKED_SECONDS = 2.0
LONGEST_LOCKED_SECONDS = 30.0
UNFIT_SECONDS = 10.0
LOADING_SECONDS = 0.2


class Rates:
    """How many rows a second were written lately, by the ids of sources. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[int, int] = {}
        self._rates: dict[int, float] = {}
        self._since = time.monotonic()

    def add(self, source_id: int, rows: int) -> None:
        """Count rows that were written just now."""
        with self._lock:
            self._counts[source_id] = self._counts.get(source_id, 0) + rows

    def latest(self) -> Mapping[int, float]:
        """The rates since this was asked for last, half of each that of before."""
        with self._lock:
            now = time.monotonic()
            seconds = now - self._since
            if seconds > 1:
                measured = {each: count / seconds for each, count in self._counts.items()}
                before = self._rates or measured
                halves = {each: (measured.get(each, 0) + before.get(each, 0)) / 2 for each in measured | before}
                self._rates = {each: round(rate, 2) for each, rate in halves.items() if rate >= 0.01}
                self._counts, self._since = {}, now
            return dict(self._rates)


class Keeper:
    """One thread that keeps sources in step, by a session of its own.

    :param stopped: set when it is to end; it ends between batches.
    :param poll_interval: seconds between looks.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        loading: Loading,
        turns: QueriesFirst,
        stopped: threading.Event,
        rates: Rates,
        poll_interval: float,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._loading = loading
        self._turns = turns
        self._stopped = stopped
        self._rates = rates
        self._poll_interval = poll_interval
        self._put_off: dict[int, float] = {}  # until when, by the ids of sources
        self._locked: dict[int, float] = {}  # for how long they were put off last, since they were locked
        self._refreshing = Refreshing(engine)
        self._explained = 0.0
        self._get_encoder = loading.now

    def run(self) -> None:
        """Work until it is stopped, whatever becomes of the database meanwhile."""
        while not self._stopped.is_set():
            try:
                with open_session(self._engine) as session:
                    self._serve(session)
            except errors.SearchAppError as exc:
                logger.warning("%s; sources are kept in step when it can be", exc)
                self._stopped.wait(CHORES_SECONDS)
            except Exception:  # were the thread to end, nobody would know
                logger.exception("sources are kept in step again in a while")
                self._stopped.wait(UNFIT_SECONDS)

    def run_once(self) -> int:
        """Do what waits now, first readings and comparisons as a whole; how many keys were dealt with."""
        self._get_encoder = self._loading.wait
        done = 0
        with open_session(self._engine) as session:
            watch = Watch(session)
            self._retry_due(session)
            self._explain(session, at_once=True)
            while not self._stopped.is_set():
                dealt, _ = self._round(session)
                done += dealt
                if not dealt and not self._fill(session, watch):
                    break
            self._refreshing.refresh(session, partial(self._target, session), idle=True, at_once=True)
        return done

    def _serve(self, session: Session) -> None:
        watch = Watch(session)
        chores, filled = 0.0, False
        while not self._stopped.is_set():
            dealt, seconds = self._round(session)
            if are_due := time.monotonic() - chores > CHORES_SECONDS:
                chores = time.monotonic()
                self._retry_due(session)
                self._explain(session)
            if are_due or (filled and not dealt):
                filled = self._fill(session, watch)
            idle = not dealt and not filled
            if are_due:
                self._refreshing.refresh(session, partial(self._target, session), idle=idle)
            if idle:
                self._refreshing.remove_retired()
                self._stopped.wait(max(self._poll_interval, LOOKS_SHARE * seconds))

    def _explain(self, session: Session, *, at_once: bool = False) -> None:
        """Look whether the tables of all sources are as they must be, though nothing of them is read just now.

        :param at_once: though that was done a moment ago.
        """
        if at_once or time.monotonic() - self._explained >= EXPLAIN_SECONDS:
            self._explained = time.monotonic()
            with session.transaction() as connection:
                sources = catalog.running(connection)
            for source in sources:
                batch.explain(session, source)

    def _round(self, session: Session) -> tuple[int, float]:
        """Deal with one batch of one source; how many keys these were, and how long the look for them took."""
        began = time.monotonic()
        with session.transaction() as connection:
            lanes = log.look(connection)
        seconds = time.monotonic() - began
        if not lanes:
            return 0, seconds
        with session.transaction() as connection:
            found = [each for each in catalog.running(connection) if each.id in lanes and self._is_ready(each)]
        for source in random.sample(found, len(found)):
            if dealt := self._attempt(session, source, partial(self._deal, session, source, lanes[source.id])):
                return dealt, seconds
        return 0, seconds

    def _deal(self, session: Session, source: Source, lanes: Sequence[int]) -> int:
        """Deal with a batch; how many keys these were."""
        dealt = batch.work_off(session, source, self._target(session, source), lanes)
        self._locked.pop(source.id, None)
        self._rates.add(source.id, dealt)
        self._refreshing.note(source, dealt)
        return dealt

    def _attempt(self, session: Session, source: Source, work: Callable[[], int]) -> int:
        """Do some work for a source; what keeps it from being read is noted, or it is put off for a while."""
        try:
            return work()
        except errors.CollectionMissing:
            reason = f"the collection {source.collection} was dropped; remove the source, and add it again"
            self._mark_broken(session, source, reason)
        except ColumnUnfit as exc:
            self._mark_broken(session, source, str(exc))
        except (psycopg.Error, sqlalchemy.exc.DBAPIError) as exc:
            self._cope(session, source, exc)
        except StillLoading:  # others go on meanwhile, and other workers may have it
            self._put_off[source.id] = time.monotonic() + LOADING_SECONDS
        except errors.SearchAppError as exc:
            logger.warning("the source %s has to wait: %s", source, exc)
            self._put_off[source.id] = time.monotonic() + UNFIT_SECONDS
        except Exception:  # other sources go on
            logger.exception("the source %s has to wait", source)
            self._put_off[source.id] = time.monotonic() + UNFIT_SECONDS
        return 0

    def _mark_broken(self, session: Session, source: Source, reason: str) -> None:
        logger.warning("the source %s is broken: %s", source, reason)
        with session.transaction() as connection:
            catalog.mark_broken(connection, source, reason)

    def _cope(self, session: Session, source: Source, exc: Exception) -> None:
        """Say what is in the way of reading a source; raises what is in the way of all."""
        cause = exc.orig if isinstance(exc, sqlalchemy.exc.DBAPIError) else exc
        if session.is_over or not isinstance(cause, psycopg.Error):
            raise exc
        if batch.explain(session, source):
            return
        said = database.translate(cause)
        if isinstance(said, errors.LockNotAvailable):  # the longer it is so, the more rarely it is tried
            seconds = min(2 * self._locked.get(source.id, LOCKED_SECONDS / 2), LONGEST_LOCKED_SECONDS)
            self._locked[source.id] = seconds
        else:
            seconds = LOCKED_SECONDS
            logger.warning("the source %s has to wait: %s", source, said)
        self._put_off[source.id] = time.monotonic() + seconds

    def _is_ready(self, source: Source) -> bool:
        return time.monotonic() >= self._put_off.get(source.id, 0.0)

    def _target(self, session: Session, source: Source) -> Target:
        return targets.open_target(session, self._registry, source, self._encoder)

    def _encoder(self, model: str, revision: str) -> Encoder:
        return YieldingEncoder(self._get_encoder(Known(model, revision)), self._turns)

    def _retry_due(self, session: Session) -> None:
        with session.transaction() as connection:
            failures.retry_due(connection)

    def _fill(self, session: Session, watch: Watch) -> bool:
        """Go on with first readings, polls and comparisons; whether something was done that others may follow on."""
        with session.transaction() as connection:
            sources = catalog.running(connection)
        watch.leave({each.id for each in sources})
        filled = 0
        for source in filter(self._is_ready, sources):
            filled += self._attempt(session, source, partial(self._look, session, watch, source))
        return bool(filled)

    def _look(self, session: Session, watch: Watch, source: Source) -> int:
        found = watch.poll(source)
        if not source.backfilled:
            return found + backfill.advance(session, source)
        return found + watch.compare(source, partial(self._target, session, source))
