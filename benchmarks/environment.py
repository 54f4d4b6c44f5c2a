"""What surrounds a run: threads, variables, a folder and a server of its own. Imports no numpy."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"
DOCS = ROOT / "docs" / "benchmarks"


def prepare() -> int:
    """Set the variables that this process and its children read; nothing of the caller's database is left.

    :return: the threads that every side may use.
    """
    threads = physical_cores()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in [name for name in os.environ if name.startswith("PG")] + ["DATABASE_URL"]:
        os.environ.pop(name, None)
    return threads


def physical_cores() -> int:
    """How many cores this process may run on, two threads of one core counted once: as ONNX Runtime does by itself."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.exists() else str(cpu))
    return len(cores)


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder for the server and the exported graphs, named to all processes; gone afterwards.

    Not where temporary files usually are: that may be memory, and loading is to be measured on a disk.
    """
    BUILD.mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="bench-", dir=BUILD))
    os.environ["SEARCHAPP_HOME"] = str(home)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def temporary_server(home: Path) -> Iterator[str]:
    """A migrated embedded server with searchapp's own settings, and its libpq string; gone afterwards."""
    from searchapp import database, embedded, schema

    try:
        parameters = embedded.start(home, follow_parent=True)
        engine = database.create_engine(parameters)
        schema.upgrade(engine)
        engine.dispose()
        yield database.conninfo(parameters)
    finally:
        embedded.stop(home)
        if (place := embedded.folder(home)) is not None:
            shutil.rmtree(place, ignore_errors=True)
