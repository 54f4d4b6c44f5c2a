"""The machine and the software: what a figure is worth depends on them. Nothing here names a path, a user or a host."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from benchmarks import timing

# A square matrix of 16 MB: far more than the caches of a core, as little as is needed to reach the full rate.
SIZE = 2048
PRODUCTS = 5
COPIED = 256 << 20  # bytes
FLAGS = ("avx2", "avx512f", "avx512_vnni", "amx_tile", "amx_int8", "amx_bf16")
PACKAGES = ("onnxruntime", "torch", "sentence-transformers", "numpy", "psycopg", "sqlalchemy", "searchapp")
SETTINGS = (
    "shared_buffers",
    "effective_cache_size",
    "maintenance_work_mem",
    "work_mem",
    "max_wal_size",
    "random_page_cost",
    "jit",
    "max_parallel_workers_per_gather",
    "max_parallel_maintenance_workers",
    "fsync",
    "synchronous_commit",
    "hnsw.iterative_scan",
)


def describe(threads: int) -> dict[str, Any]:
    """The machine: its processor, and how fast it multiplies and copies with these threads."""
    cpu = _processor()
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": threads,
        "flags": [flag for flag in FLAGS if flag in cpu.get("flags", "").split()],
        "memory, GB": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "sgemm, GFLOP/s": round(sgemm_rate(sgemm()), 1),
        "copy, GB/s": round(copying(), 1),
    }


def versions(url: str) -> dict[str, str]:
    """The versions of what takes part."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT current_setting('server_version'), extversion FROM pg_extension WHERE extname = 'vector'"
        ).fetchone()
    assert found is not None
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "postgresql": found[0], "pgvector": found[1], **packages}


def server_settings(url: str) -> dict[str, str]:
    """The settings of the server that bear on these figures."""
    with psycopg.connect(url) as connection:
        connection.execute("LOAD 'vector'")  # its settings are unknown before
        found = connection.execute("SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", [[*SETTINGS]])
        return dict(found.fetchall())


def sgemm() -> float:
    """The seconds in which numpy multiplies two large square matrices of float32."""
    matrix = np.random.default_rng(0).standard_normal((SIZE, SIZE), dtype=np.float32)
    out = np.empty_like(matrix)
    np.matmul(matrix, matrix, out=out)
    return statistics.median(timing.seconds(lambda: np.matmul(matrix, matrix, out=out)) for _ in range(PRODUCTS))


def sgemm_rate(seconds: float) -> float:
    """What a duration of :func:`sgemm` is in GFLOP/s."""
    return 2 * SIZE**3 / seconds / 1e9


def copying() -> float:
    """The rate at which one thread copies memory, bytes read and bytes written counted, in GB/s."""
    source = np.ones(COPIED, dtype=np.uint8)
    target = np.empty_like(source)
    np.copyto(target, source)
    took = [timing.seconds(lambda: np.copyto(target, source)) for _ in range(PRODUCTS)]
    return 2 * COPIED / statistics.median(took) / 1e9


def _processor() -> dict[str, str]:
    """What Linux says of the first processor."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
