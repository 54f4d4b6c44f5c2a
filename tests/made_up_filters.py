"""Filters made up by hypothesis, the documents that they are tried on, and names and texts that are hard to quote."""

from __future__ import annotations

import os
import uuid
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert

from searchapp.models import Document
from searchapp.spaces import Space

NASTY = [
    "",
    " ",
    "it's",
    'say "hi"',
    "\\",
    "a\\",
    "\\'",
    "\\u0041 \\n",
    "'; DROP TABLE searchapp_data.documents; --",
    '" ? (@ == 1) || $."a',
    '") || (1 == 1',
    "100 %",
    "%s",
    "%(collection_id_1)s",
    ":x",
    "a$b",
    "a$$b $1",
    "a.b",
    "a[0]",
    "{0}",
    "/* */ --",
    "__[POSTCOMPILE_param_1]",
    "__[POSTCOMPILE_param_1",
    "tab\tline\nend\r\x01\x1f\x7f",
    "naïve 🐘 \u202e\u2028\ufeff\U0010ffff",
    "E'\\x27'",
    "?",
    "{condition}",
]
SCALARS = [
    *[None, True, False, 0, 1, 1.0, -1, 1.5, 2, 10, 1e300, -1e-300, 10**17 + 1, 10**17, 0.1],
    *["", "1", "a", "A", "b", "\xe9", "\uffff", "\U0001f418", "true", "null"],
]
ARRAYS: list[Any] = [
    *[[], [1], [1, 2], [2, 1], [1.0], [None], ["a", 2, None, True]],
    *[[[]], [[1]], [[1], 1], [[[1]]], [[None]], [{"b": 1}], [{"b": 1}, 3], [[{"b": 1}]], [{}]],
]
OBJECTS = [
    *[{}, {"b": 1}, {"b": 1.0}, {"b": None}, {"b": [1]}, {"b": 1, "c": 2}, {"c": 2, "b": 1}, {"$gt": 0}],
    {"b": {"c": [1, {"d": None}]}},
]
DOCUMENTS: list[dict[str, Any]] = [
    {},
    *({"a": value} for value in SCALARS + ARRAYS + OBJECTS),
    {"b": 1},
    {"a": 1, "b": 2},
    {"a": 1, "b": None, "c": [1]},
    {"a": "a", "b": ["a", "b"]},
    {"b": [3, 5], "c": {}},
    *({name: 1, "b": name, "c": [name, [name], {name: [name]}]} for name in NASTY),
]
DECLARABLE = ["a", "a.b.c", "b", *(name for name in NASTY if name and name.isprintable())]


def store(connection: Connection, space: Space, metadata: list[dict[str, Any]]) -> list[uuid.UUID]:
    """Store documents that have this metadata, and as their keys the places in the list; return their ids."""
    ids = [uuid.uuid4() for _ in metadata]
    rows = [
        {"collection_id": space.collection_id, "id": each, "key": str(place), "metadata": value}
        for place, (each, value) in enumerate(zip(ids, metadata, strict=True))
    ]
    connection.execute(insert(Document).values(text="x", content_hash=b""), rows)
    return ids


# Filters at random

storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
nasty = st.sampled_from(NASTY)
numbers = st.integers(-3, 12) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.sampled_from(SCALARS) | numbers | nasty | storable
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("bc") | nasty, inner, max_size=2),
    max_leaves=6,
)
# mostly what there is in a document or nearly so, for a filter that keeps nothing tells little
values = st.sampled_from(SCALARS + ARRAYS + OBJECTS) | st.sampled_from(SCALARS) | json_values
comparable = scalars.filter(lambda value: value is not None and not isinstance(value, bool))
operators = st.recursive(
    st.one_of(
        *(st.fixed_dictionaries({name: values}) for name in ("$eq", "$ne")),
        *(st.fixed_dictionaries({name: comparable}) for name in ("$lt", "$lte", "$gt", "$gte")),
        *(st.fixed_dictionaries({name: st.lists(values, max_size=4)}) for name in ("$in", "$nin")),
        st.fixed_dictionaries({"$exists": st.booleans()}),
        st.fixed_dictionaries({"$contains": st.lists(values, max_size=2) | scalars}),
    ),
    lambda inner: st.builds(lambda one, two: {**one, "$not": two}, inner, inner) | st.builds(dict.__or__, inner, inner),
    max_leaves=3,
)
plain = values.filter(lambda value: not (isinstance(value, dict) and any(name.startswith("$") for name in value)))
fields = st.sampled_from(["a"] * 60 + ["a.b"] * 20 + ["a.b.c", "b", "c"] * 10 + NASTY)
entries = st.dictionaries(fields, plain | operators, min_size=1, max_size=2)
several = st.lists(entries | st.fixed_dictionaries({"$not": entries | st.just({})}), min_size=1, max_size=3)
sound_filters = entries | st.fixed_dictionaries(
    {}, optional={"$and": several, "$or": several, "$not": entries, "a": plain | operators}
)

# Any JSON

words = st.sampled_from(
    ["$and", "$or", "$not", "$eq", "$ne", "$in", "$nin", "$gt", "$lte", "$contains", "$exists", "$nor", "$", "a", "a.b"]
)
names = words | words | nasty | st.text(max_size=4)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**1000) | st.text(max_size=4) | nasty,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
    max_leaves=8,
)
any_json = st.dictionaries(names, anything, max_size=2) | anything

# Filters that are any JSON; `make test-long` takes ten thousand.
EXAMPLES = int(os.environ.get("FILTER_EXAMPLES", "150"))
bounded = settings(derandomize=True, database=None, deadline=None)
