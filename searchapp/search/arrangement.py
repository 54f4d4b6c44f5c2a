"""How an answer is arranged: several passages a document, diverse hits, groups, and what counts beside the distance."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from searchapp import errors, values

MAX_PASSAGES = 100
MAX_GROUP_SIZE = 1000
# MMR chooses among so many of the best, or as many as are asked for; and so many of the nearest are boosted.
CANDIDATES = 100
# Between these no product or quotient of a boost runs over or under, which PostgreSQL calls an error.
LEAST, MOST = 1e-100, 1e100


@dataclass(frozen=True, slots=True)
class Boost:
    """What a number in the metadata gives a hit: ``x / (x + pivot)``, which is 0 for none and nears 1.

    *Source:* Craswell et al., Relevance weighting for query independent evidence, SIGIR 2005 (saturation).

    :param field: of the metadata, with dots into objects; of an array its first element counts; what has no number
        above 0 in it gets 0.
    :param weight: its share of the score, over 0 and below 1; the rest is the similarity's, 1 - distance.
    :param pivot: the number that gives one half.
    :raises errors.InvalidInput: a value that cannot be.
    """

    field: str
    weight: float
    pivot: float

    def __post_init__(self) -> None:
        check_field(self.field)
        _check_share(self.weight)
        _check_positive("the pivot of a boost", self.pivot)


@dataclass(frozen=True, slots=True)
class Decay:
    """What nearness to a date or a number in the metadata gives a hit: ``0.5 ** (how far / half_life)``.

    :param field: of the metadata, with dots into objects: a date in ISO 8601, in UTC where it has no time zone, or a
        number; of an array its first element counts; what has none gets 0.
    :param weight: its share of the score, over 0 and below 1; the rest is the similarity's, 1 - distance.
    :param half_life: how far away half is left: a duration for dates, a number for numbers.
    :param origin: from where: a datetime with a time zone, or a number; None: now, so that a hit decays with its age.
    :raises errors.InvalidInput: a value that cannot be, such as a half-life of zero or infinity.
    """

    field: str
    weight: float
    half_life: dt.timedelta | float
    origin: dt.datetime | float | None = None

    def __post_init__(self) -> None:
        check_field(self.field)
        _check_share(self.weight)
        dated = isinstance(self.half_life, dt.timedelta)
        _check_positive("the half-life of a decay", self.seconds)
        if dated and not (self.origin is None or isinstance(self.origin, dt.datetime)):
            raise errors.InvalidInput(f"the origin of a decay is {self.origin!r}; its half-life asks for a datetime")
        if isinstance(self.origin, dt.datetime) and self.origin.tzinfo is None:
            raise errors.InvalidInput(
                f"the origin of a decay is {self.origin}; give it a time zone, such as datetime.UTC"
            )
        if not dated and not _is_number(self.origin):
            raise errors.InvalidInput(
                f"the origin of a decay is {self.origin!r}; expected a number, or a half-life that is a timedelta"
            )

    @property
    def seconds(self) -> Any:
        """The half-life as a number."""
        return self.half_life.total_seconds() if isinstance(self.half_life, dt.timedelta) else self.half_life


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How an answer is arranged.

    :param passages: how many of its nearest passages a hit shows at most.
    :param diversity: by how much hits are to differ from each other: 0 not at all, 1 as much as can be.
    :param boosts: what counts beside the distance.
    :param group_by: the field by whose values hits are grouped; then there are as many groups as the limit says.
    :param group_size: how many hits a group has at most.
    """

    passages: int = 1
    diversity: float | None = None
    boosts: tuple[Boost | Decay, ...] = ()
    group_by: str | None = None
    group_size: int = 3

    def __bool__(self) -> bool:
        return self != PLAIN

    @property
    def by_vector_alone(self) -> bool:
        """Whether it can be had in the mode ``vector`` alone."""
        return bool(self.boosts) or self.group_by is not None

    @property
    def reordered(self) -> bool:
        """Whether hits stand in another order than that of their distance or score."""
        return self.by_vector_alone or self.diversity is not None


PLAIN = Arrangement()


def arrangement(
    passages: int = 1,
    diversity: float | None = None,
    boost: Boost | Decay | Sequence[Boost | Decay] | None = None,
    group_by: str | None = None,
    group_size: int = 3,
) -> Arrangement:
    """Make an arrangement that can be.

    :raises errors.InvalidInput: a value that cannot be, or two that do not go together.
    """
    _check_count("passages", passages, MAX_PASSAGES)
    _check_count("group_size", group_size, MAX_GROUP_SIZE)
    if diversity is not None and not (_is_number(diversity) and 0 <= diversity <= 1):
        raise errors.InvalidInput(f"diversity is {diversity!r}; expected 0, as near as can be, to 1, as diverse")
    listed = () if boost is None else boost if isinstance(boost, Iterable) else (boost,)
    boosts = tuple(listed)
    for each in boosts:
        if not isinstance(each, (Boost, Decay)):
            raise errors.InvalidInput(f"boost is {each!r}; expected searchapp.Boost(...) or searchapp.Decay(...)")
    if sum(each.weight for each in boosts) >= 1:
        raise errors.InvalidInput("the weights of the boosts add up to 1 or more; the similarity would count nothing")
    if group_by is not None:
        check_field(group_by)
        if boosts or diversity is not None or passages > 1:
            raise errors.InvalidInput("groups take neither a boost nor diversity nor several passages a hit")
    else:
        group_size = PLAIN.group_size  # which then says nothing
    return Arrangement(passages, None if diversity is None else float(diversity), boosts, group_by, group_size)


def check_field(field: str) -> str:
    """Return a name that a field of the metadata can have.

    :raises errors.InvalidInput: none can.
    """
    if not isinstance(field, str) or not field or not values.is_storable(field) or "" in field.split("."):
        raise errors.InvalidInput(f"the field is {field!r}; expected its name, with dots into objects, such as lang")
    return field


def _check_count(name: str, value: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise errors.InvalidInput(f"{name} is {value!r}; expected 1 to {most:,}")


def _check_share(weight: float) -> None:
    if not (_is_number(weight) and LEAST <= weight < 1):
        raise errors.InvalidInput(f"the weight is {weight!r}; expected a share of the score, over 0 and below 1")


def _check_positive(what: str, value: Any) -> None:
    if not (_is_number(value) and value >= LEAST):
        raise errors.InvalidInput(f"{what} is {value!r}; expected a number over 0, {LEAST} to {MOST}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MOST
