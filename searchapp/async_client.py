"""The handle for asyncio: the same calls as :class:`searchapp.Client`'s, awaitable.

Each runs in a thread: encoding is arithmetic, which would hold up the event loop, and the rest waits for the database.
So there is one implementation of everything.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import Engine

from searchapp import database
from searchapp.client import Client
from searchapp.connecting import connect

P = ParamSpec("P")
R = TypeVar("R")


def connect_async(url: str | None = None, *, engine: Engine | None = None) -> AsyncClient:
    """A handle on a database for asyncio; with ``async with`` it is closed at the end.

    :param url, engine: as for :func:`searchapp.connect`, which is called when something is first awaited.
    """
    return AsyncClient(functools.partial(connect, url, engine=engine))


def _in_thread(method: Callable[Concatenate[Client, P], R]) -> Callable[Concatenate[AsyncClient, P], Awaitable[R]]:
    async def call(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._run(lambda client: method(client, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


class AsyncClient:
    """A handle on one database, as :class:`searchapp.Client`, whose calls are awaited.

    A call that is cancelled ends its statement in PostgreSQL. What a call calls back (``on_progress``,
    ``on_rejected``, ``on_measured``), it calls from another thread.

    :param connect: makes the handle that does the work.
    """

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = functools.cache(connect)
        self._connecting = threading.Lock()
        self._threads = ThreadPoolExecutor(database.POOL_SIZE, thread_name_prefix="searchapp-async")

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        await self._run(lambda _: None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the pool's connections, if this handle made the pool."""
        await self._run(Client.close)
        self._threads.shutdown(wait=False)

    ingest = _in_thread(Client.ingest)
    load_vectors = _in_thread(Client.load_vectors)
    get = _in_thread(Client.get)
    delete = _in_thread(Client.delete)
    count = _in_thread(Client.count)
    search = _in_thread(Client.search)
    search_many = _in_thread(Client.search_many)
    search_by_vector = _in_thread(Client.search_by_vector)
    search_many_by_vector = _in_thread(Client.search_many_by_vector)
    similar = _in_thread(Client.similar)
    search_by_examples = _in_thread(Client.search_by_examples)
    facets = _in_thread(Client.facets)
    context = _in_thread(Client.context)
    explain = _in_thread(Client.explain)
    explain_by_vector = _in_thread(Client.explain_by_vector)
    space = _in_thread(Client.space)
    collections = _in_thread(Client.collections)
    describe = _in_thread(Client.describe)
    create_collection = _in_thread(Client.create_collection)
    add_field = _in_thread(Client.add_field)
    drop_field = _in_thread(Client.drop_field)
    drop_collection = _in_thread(Client.drop_collection)
    maintain = _in_thread(Client.maintain)
    make_words = _in_thread(Client.make_words)
    tune = _in_thread(Client.tune)
    evaluate = _in_thread(Client.evaluate)
    compare = _in_thread(Client.compare)

    async def _run(self, work: Callable[[Client], R]) -> R:
        def connect_and_work() -> R:
            with self._connecting:  # the first call connects, the others wait for that
                client = self._connect()
            return work(client)

        canceller = database.Canceller()
        context = contextvars.copy_context()
        context.run(database.CANCELLER.set, canceller)
        working = asyncio.get_running_loop().run_in_executor(self._threads, context.run, connect_and_work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.to_thread(canceller.cancel)
            with suppress(Exception):  # that it was cancelled, or what else came of it
                await working
            raise
