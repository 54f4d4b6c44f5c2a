"""A SEARCHAPP_HOME that cannot be written to, or that holds a damaged graph, keeps nobody from searching."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from searchapp import database
from searchapp.client import Client
from searchapp.encoders import weights
from searchapp.encoders.graphs import EMBEDDINGS, Cache
from searchapp.encoders.registry import Registry
from tests import conftest
from tests.acceptance.commands import Done, run_command

MODEL = weights.PUBLISHED[weights.DEFAULT].model


@pytest.fixture(scope="module")
def url(server: database.Parameters, template: str, registry: Registry) -> Iterator[str]:
    with conftest.temporary_database(server, template) as url:
        engine = database.create_engine(database.parse_url(url))
        documents = [{"key": "shoes", "text": "Red running shoes"}, {"key": "hat", "text": "A blue woollen hat"}]
        Client(engine, registry=registry).ingest(documents, collection="things")
        engine.dispose()
        yield url


@pytest.fixture
def home(registry: Registry, tmp_path: Path) -> Path:
    """A home with a whole graph in it."""
    registry.encoder(weights.DEFAULT)
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    for path in (conftest.HOME / "models").glob(f"{weights.DEFAULT}-*"):
        os.link(path, home / "models" / path.name)
    return home


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write below a folder: by the modes, which root ignores; so for root by mounting it on itself."""
    root = os.geteuid() == 0
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    if root:
        mount("--bind", str(folder), str(folder))
    try:
        if root:
            mount("-o", "remount,bind,ro", str(folder))
        else:
            for each in folders:
                each.chmod(0o500)
        with pytest.raises(OSError, match=r"Read-only|Permission"):
            (folder / "attempt").touch()
        yield
    finally:
        if root:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            for each in folders:
                each.chmod(0o700)


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.partition(os.linesep)[0]}")


def search(url: str, folder: Path, home: Path) -> Done:
    """The command, which must find the shoes first."""
    done = run_command(url, folder, "search", "sneakers", "--collection", "things", "--json", SEARCHAPP_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert [hit["key"] for hit in json.loads(done.stdout)["hits"]] == ["shoes", "hat"]
    return done


def test_a_home_that_cannot_be_written_to_costs_one_warning(url: str, tmp_path: Path) -> None:
    home = tmp_path / "empty"
    home.mkdir()
    with read_only(home):
        said = search(url, tmp_path, home).stderr
    assert said.startswith("searchapp: encoding all-MiniLM-L6-v2 more slowly: its ONNX graph cannot be kept in ")
    assert said.count("\n") == 1


def test_a_home_made_ready_and_then_locked_is_used_without_a_word(url: str, tmp_path: Path, home: Path) -> None:
    """As in a container's image."""
    with read_only(home):
        assert search(url, tmp_path, home).stderr == ""


@pytest.mark.parametrize("left", [0, 1, 100, -1])
@pytest.mark.parametrize("name", ["weights", "graph", "tokenizer", "description"])
def test_a_graph_that_is_cut_off_is_not_used(home: Path, name: str, left: int) -> None:
    cache = Cache(home / "models", EMBEDDINGS)
    cut(getattr(cache._files(MODEL.name, MODEL.revision), name), left)
    assert cache.find(MODEL.name, MODEL.revision) is None


@pytest.mark.parametrize("change", [{"max_tokens": 64}, {"unknown": 1}, {"name": []}])
def test_a_graph_that_is_not_described_as_it_was_is_not_used(home: Path, change: dict[str, object]) -> None:
    cache = Cache(home / "models", EMBEDDINGS)
    description = cache._files(MODEL.name, MODEL.revision).description
    read = json.loads(description.read_text())
    description.unlink()  # it is linked to the run's own
    description.write_text(json.dumps(read | {"model": read["model"] | change}))
    assert cache.find(MODEL.name, MODEL.revision) is None
    assert cache.describe(MODEL.name, MODEL.revision) is None


def test_a_damaged_graph_is_made_anew_by_one_of_two_commands(url: str, tmp_path: Path, home: Path) -> None:
    cache = Cache(home / "models", EMBEDDINGS)
    cut(cache._files(MODEL.name, MODEL.revision).weights, 1_000_000)
    with ThreadPoolExecutor(2) as pool:
        said = [done.stderr for done in pool.map(lambda home: search(url, tmp_path, home), [home] * 2)]
    waited, made = sorted(said, key=len)
    damaged = "searchapp: the exported graph of all-MiniLM-L6-v2 is damaged; making it anew\n"
    exporting = "searchapp: exporting all-MiniLM-L6-v2 to ONNX, once; it makes encoding faster\n"
    assert made == damaged + exporting
    assert waited in {damaged, ""}  # nothing where it came too late to see the damage
    assert cache.find(MODEL.name, MODEL.revision) is not None
    assert not list(cache.folder.glob("draft-*"))


def cut(path: Path, left: int) -> None:
    """Cut a file to so many bytes, or off its end where that is negative."""
    whole = path.read_bytes()
    path.unlink()  # it is linked to the run's own
    path.write_bytes(whole[:left])
