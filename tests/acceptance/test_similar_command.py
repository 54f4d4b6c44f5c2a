"""``searchapp similar`` as a process: no model is loaded for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from searchapp.client import Client
from tests.acceptance.commands import Done, call, error_of, forbid_models, run_all, run_command
from tests.made_up import random_vectors

DOCUMENTS = [
    {"key": f"k{number}", "text": f"text {number}", "metadata": {"even": number % 2 == 0}} for number in range(30)
]


@pytest.fixture(autouse=True)
def things(db: Client, tmp_path: Path) -> None:
    forbid_models(tmp_path)
    db.load_vectors(DOCUMENTS, random_vectors(len(DOCUMENTS)), collection="things", model="all-MiniLM-L6-v2")


def test_hits_are_those_of_the_call(db: Client, url: str, tmp_path: Path) -> None:
    options = ("--collection", "things", "--limit", "3")
    told, lines, table, page = run_all(
        url,
        tmp_path,
        [
            ("similar", "k1", *options, "--json", "--filter", '{"even": true}'),
            ("similar", "k1", *options, "--jsonl"),
            ("similar", "k1", *options, "--csv"),
            ("similar", "k1", *options),
        ],
    )
    expected = db.similar("k1", collection="things", limit=3, filter={"even": True})
    assert [hit["key"] for hit in json.loads(told.stdout)["hits"]] == [hit.key for hit in expected]
    nearest = [hit.key for hit in db.similar("k1", collection="things", limit=3)]
    assert "k1" not in nearest
    assert [line.split('"key": "')[1].split('"')[0] for line in lines.stdout.splitlines()] == nearest
    assert len(table.stdout.splitlines()) == 4
    assert all(f"text {key[1:]}" in page.stdout for key in nearest)


def test_a_key_that_is_not_there_is_told_in_one_line(url: str, tmp_path: Path) -> None:
    done = run_command(url, tmp_path, "similar", "k99", "--collection", "things")
    assert error_of(done).startswith("the collection things has no document 'k99'; did you mean k9")
    both = run_command(url, tmp_path, "similar", "k9", "--collection", "things", "--json", "--csv")
    assert "give one of --json, --jsonl and --csv" in error_of(both)


def test_several_keys_and_what_hits_are_to_be_unlike(db: Client, url: str, tmp_path: Path) -> None:
    options = ("--collection", "things", "--json")
    like, unlike, best, single = run_all(
        url,
        tmp_path,
        [
            ("similar", "k1", "k2", *options, "--limit", "4", "--offset", "1"),
            ("similar", "k1", "k2", "--unlike", "k3", "--unlike", "k4", *options),
            ("similar", "k1", "k2", "--unlike", "k3", "--strategy", "best_score", *options, "--min-score", "-0.3"),
            ("similar", "k1", "--strategy", "best_score", *options),
        ],
    )
    expected = [
        db.search_by_examples(["k1", "k2"], collection="things", limit=4, offset=1),
        db.search_by_examples(["k1", "k2"], ["k3", "k4"], collection="things"),
        db.search_by_examples(["k1", "k2"], ["k3"], collection="things", strategy="best_score", min_score=-0.3),
        db.search_by_examples(["k1"], collection="things", strategy="best_score"),
    ]
    for done, hits in zip((like, unlike, best, single), expected, strict=True):
        assert (done.returncode, done.stderr) == (0, "")
        told = json.loads(done.stdout)["hits"]
        assert [(hit["key"], hit["score"]) for hit in told] == [(hit.key, pytest.approx(hit.score)) for hit in hits]
    assert not {"k1", "k2", "k3", "k4"} & {hit["key"] for hit in json.loads(unlike.stdout)["hits"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("k1", "k99"), "the collection things has no document 'k99'; did you mean k9"),
        (("k1", "--unlike", "k99"), "the collection things has no document 'k99'; did you mean k9"),
        (("k1", "k2", "--cursor", "next"), "--cursor goes with a single KEY"),
        (("k1", "--unlike", "k2", "--cursor", "next"), "--cursor goes with a single KEY"),
        (("k1", "--strategy", "best_score", "--cursor", "next"), "--cursor goes with a single KEY"),
        (("k1", "k2", "--strategy", "best"), "strategy is 'best'; expected one of: average, best_score"),
        (("k1", "--strategy", "best"), "strategy is 'best'; expected one of: average, best_score"),
        (("k1", "--diversity", "0.5", "--cursor", "next"), "groups, boosts and diversity have no pages"),
        (("k1", "k2", "--strategy", "best_score", "--group-by", "even"), "groups and boosts go with the strategy"),
    ],
)
def test_examples_that_cannot_be_are_told_in_one_line(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    code = call("similar", *arguments, "--collection", "things")
    assert error_of(Done(arguments, code, *capsys.readouterr())).startswith(said)
