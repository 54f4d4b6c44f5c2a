"""``searchapp ingest --vectors`` and ``--vector``: embeddings that are there already."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from searchapp.client import Client
from searchapp.vectors import Array
from tests.conftest import Run
from tests.made_up import DIMENSIONS, random_vectors

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture
def vectors(tmp_path: Path) -> Array:
    """Of the three documents in things.jsonl, in vectors.npy."""
    made = random_vectors(3)
    np.save(tmp_path / "vectors.npy", made.astype(np.float16))
    rows = [{"id": number, "text": f"text {number}", "colour": "red"} for number in range(3)]
    (tmp_path / "things.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    return made


def test_a_file_of_vectors_goes_with_the_rows(run: Run, db: Client, vectors: Array) -> None:
    arguments = ["ingest", "things.jsonl", "--collection", "things", "--vectors", "vectors.npy", "--model", MODEL]
    done = run(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["documents"] == 3
    assert [db.search_by_vector(each, collection="things")[0].key for each in vectors] == ["0", "1", "2"]
    assert db.search_by_vector(vectors[0], collection="things")[0].metadata == {"colour": "red"}
    assert json.loads(run(*arguments, "--json").stdout)["unchanged"] == 3


def test_a_column_of_a_parquet_file_is_the_vector(run: Run, db: Client, vectors: Array, tmp_path: Path) -> None:
    lists = [each.tolist() for each in vectors]
    lists[1] = lists[1][:-1]
    table = pa.table({"id": ["a", "b", "c"], "text": ["x", "y", "z"], "made": lists, "year": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "things.parquet")
    done = run("ingest", "things.parquet", "--collection", "things", "--vector", "made", "--model", MODEL)
    assert "2 documents (2 chunks), 0 unchanged, 1 rejected" in done.stdout
    faulty = json.loads((tmp_path / "things.parquet.rejected.jsonl").read_text())
    assert (faulty["key"], faulty["reason"]) == ("b", f"the vector has {DIMENSIONS - 1} dimensions, expected 384")
    hit = db.search_by_vector(vectors[2], collection="things")[0]
    assert (hit.key, hit.metadata) == ("c", {"year": 3})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--vectors", "vectors.npy"], "say which model the vectors came from: --model NAME"),
        (["--vectors", "vectors.npy", "--vector", "made", "--model", MODEL], "--vectors or --vector, not both"),
        (["--vectors", "missing.npy", "--model", MODEL], "missing.npy cannot be read"),
        (["--vectors", "things.jsonl", "--model", MODEL], "things.jsonl cannot be read as an array of numbers"),
        (["--vectors", "packed.npz", "--model", MODEL], "packed.npz cannot be read as an array of numbers"),
        (["--vectors", "empty.npy", "--model", MODEL], "empty.npy cannot be read as an array of numbers"),
        (["--vectors", ".", "--model", MODEL], "cannot be read as an array of numbers (.npy): Is a directory"),
        (["--vectors", "cube.npy", "--model", MODEL], "an array of shape (3, 2, 2)"),
        (["--vectors", "short.npy", "--model", MODEL], "short.npy has 2 rows, things.jsonl 3; expected as many"),
        (["--vectors", "narrow.npy", "--model", MODEL], "have 7 dimensions, the model's have 384"),
        (["--vectors", "vectors.npy", "--model", MODEL, "--chunk-tokens", "20"], "stands for a whole document"),
        (["--vector", "made", "--model", MODEL], "no row has a field 'made'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    run: Run, db: Client, vectors: Array, tmp_path: Path, options: list[str], reason: str
) -> None:
    np.save(tmp_path / "short.npy", vectors[:2])
    np.save(tmp_path / "narrow.npy", vectors[:, :7])
    np.savez(tmp_path / "packed.npz", vectors)
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "cube.npy", np.ones((3, 2, 2)))
    done = run("ingest", "things.jsonl", "--collection", "things", *options)
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert db.collections() == []
