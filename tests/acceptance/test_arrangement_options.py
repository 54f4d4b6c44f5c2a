"""How the commands read what arranges an answer: what cannot be is told in one line, before a server is asked."""

from __future__ import annotations

from datetime import timedelta

import pytest

from searchapp import Boost, Decay
from searchapp.cli import options
from tests.acceptance.commands import Done, call, error_of


@pytest.mark.parametrize(
    ("boosts", "decays", "expected"),
    [
        (["stars:0.3:10"], None, [Boost("stars", 0.3, 10)]),
        (["a.b:1e-3:0.5", "stars:0.3:10"], None, [Boost("a.b", 0.001, 0.5), Boost("stars", 0.3, 10)]),
        (None, ["published:0.3:30d"], [Decay("published", 0.3, timedelta(days=30))]),
        (None, ["published:0.3:1.5h"], [Decay("published", 0.3, timedelta(minutes=90))]),
        (None, ["at:0.3:90m", "at:0.3:5s"], [Decay("at", 0.3, timedelta(minutes=each)) for each in (90, 5 / 60)]),
        (["stars:0.3:10"], ["price:0.3:30:-5"], [Boost("stars", 0.3, 10), Decay("price", 0.3, 30, -5)]),
        (None, None, []),
    ],
)
def test_boosts_and_decays_are_read(
    boosts: list[str] | None, decays: list[str] | None, expected: list[Boost | Decay]
) -> None:
    assert options.parse_arrangement(1, None, boosts, decays, None, 3)["boost"] == expected


@pytest.mark.parametrize(
    ("option", "said"),
    [
        *(
            (("--boost", value), f"--boost is {value!r}; expected FIELD:WEIGHT:PIVOT, such as stars:0.2:100")
            for value in ("", "stars", "stars:0.3", "stars:0.3:10:1")
        ),
        (("--boost", ":0.3:10"), "the field is ''"),
        (("--boost", "a..b:0.3:10"), "the field is 'a..b'"),
        *((("--boost", f"stars:{value}:10"), f"--boost has {value!r} where a number") for value in ("", "x", "0,3")),
        *((("--boost", f"stars:{value}:10"), "the weight is ") for value in ("0", "1", "-0.3", "nan", "inf")),
        *((("--boost", f"stars:0.3:{value}"), "the pivot of a boost is ") for value in ("0", "-1", "nan", "inf")),
        *(
            (("--decay", value), f"--decay is {value!r}; expected FIELD:WEIGHT:HALF")
            for value in ("", "published", "published:0.3", "published:0.3:30:1:1")
        ),
        *(
            (
                ("--decay", f"published:0.3:{value}"),
                f"--decay has the half-life {value!r}; expected a number with d",
            )
            for value in ("", "30", "30w", "30D")
        ),
        *((("--decay", f"published:0.3:{value}"), "--decay has ") for value in ("d", "xd", "nand", "infd", "1e400d")),
        *((("--decay", f"published:0.3:{value}"), "the half-life of a decay is ") for value in ("0d", "-1h", "1e-9s")),
        (("--decay", "published:2:30d"), "the weight is 2.0"),
        (("--decay", "published:x:30d"), "--decay has 'x' where a number"),
        (("--decay", "price:0.3:30d:5"), "--decay has '30d' where a number"),
        (("--decay", "price:0.3:30:x"), "--decay has 'x' where a number"),
        (("--decay", "price:0.3:30:nan"), "the origin of a decay is nan"),
        (("--decay", "price:0.3:0:5"), "the half-life of a decay is 0"),
        (("--boost", "stars:0.6:10", "--decay", "published:0.4:30d"), "the weights of the boosts add up"),
        (("--boost", "stars:0.3:10", "--group-by", "even"), "groups take neither a boost"),
        (("--diversity", "1.1"), "diversity is 1.1"),
        (("--diversity", "nan"), "diversity is nan"),
        (("--passages", "0"), "passages is 0"),
        (("--group-by", ""), "the field is ''"),
        (("--group-by", "even", "--group-size", "0"), "group_size is 0"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@nowhere.invalid/none")
    code = call("similar", "k1", "--collection", "things", *option)
    assert error_of(Done(option, code, *capsys.readouterr())).startswith(said)
