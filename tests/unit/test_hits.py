"""What a search returns, by itself."""

from __future__ import annotations

from searchapp.search.hits import Hit, Hits, Took


def test_equal_numbers_are_one_group_and_true_is_another() -> None:
    values = (1, 1.0, 1, True, "1", "1", 2.5)
    hits = tuple(Hit(f"k{number}", None, "", 0.5, 0.5, {}) for number in range(len(values)))
    found = Hits(hits, "vector", True, True, Took(0, 0), group_values=values)
    groups = [(repr(group.value), [hit.key for hit in group.hits]) for group in found.groups]
    assert groups == [("1", ["k0", "k1", "k2"]), ("True", ["k3"]), ("'1'", ["k4", "k5"]), ("2.5", ["k6"])]
    assert Hits(hits, "vector", True, True, Took(0, 0)).groups == ()
