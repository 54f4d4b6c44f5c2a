"""The roles of a database, and the one that a refused call would have needed.

Migrations make them and give them their rights: migrations/sql/roles.sql and rights.sql.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from searchapp import errors
from searchapp.wire import quote

READER = "searchapp_reader"
WRITER = "searchapp_writer"  # a member of the reader
OWNER = "searchapp_owner"


class Connected(Protocol):
    """What has calls that need a role."""

    def _user(self) -> str: ...


S = TypeVar("S", bound=Connected)
P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def needed(role: str, user: Callable[[], str]) -> Iterator[None]:
    """Say which role is needed where a right is lacking. Of calls within each other the outer one says it.

    :param user: gives the role that lacks it.
    """
    try:
        yield
    except errors.PermissionDenied as exc:
        if exc.reason is None:
            raise
        said = f"{exc.reason}; this needs the role {role} (GRANT {role} TO {_quoted(user())})"
        raise errors.PermissionDenied(said, exc.reason) from exc


def needs(role: str) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """Let a method say that it needs a role, as :func:`needed`."""

    def decorate(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @functools.wraps(method)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            with needed(role, self._user):
                return method(self, *args, **kwargs)

        return call

    return decorate


def _quoted(name: str) -> str:
    """A role's name as it is written in SQL.

    >>> _quoted("ann"), _quoted("Ann Example")
    ('ann', '"Ann Example"')
    """
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else quote(name)
