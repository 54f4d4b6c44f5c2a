"""Files of a gigabyte are streamed: what is not ingested takes no memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from searchapp.client import Client

pytestmark = pytest.mark.quality

ROWS = 1000
BALLAST = 1 << 20  # bytes a row of a field that is not ingested
LIMIT = 1.2e9  # bytes resident, the model included


def write_jsonl(folder: Path) -> Path:
    path = folder / "big.jsonl"
    with path.open("w") as file:
        for number in range(ROWS):
            print(json.dumps({"id": number, "text": f"text {number}", "ballast": ballast(number)}), file=file)
    return path


def write_parquet(folder: Path) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / "big.parquet"
    schema = pa.schema({"id": pa.int64(), "text": pa.string(), "ballast": pa.string()})
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, ROWS, 250):
            numbers = range(start, start + 250)
            columns = [list(numbers), [f"text {number}" for number in numbers], [ballast(number) for number in numbers]]
            writer.write_table(pa.table(columns, schema=schema))
    return path


def ballast(number: int) -> str:
    return f"{number:08x}" * (BALLAST // 8)


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_a_gigabyte_goes_in_under_the_limit(
    write: Callable[[Path], Path], url: str, db: Client, tmp_path: Path
) -> None:
    path = write(tmp_path)
    assert path.stat().st_size > 1e9
    command = [sys.executable, "-m", "searchapp", "ingest", str(path), "--collection", "big", "--metadata", ""]
    process = subprocess.Popen(command, env={**os.environ, "DATABASE_URL": url}, cwd=tmp_path)
    resident = watch(process)
    path.unlink()
    print(f"\n{path.name}: at most {resident / 1e6:.0f} MB resident")
    assert process.returncode == 0
    assert db.count(collection="big") == ROWS
    assert resident < LIMIT


def watch(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; the most memory that it had resident, in bytes.

    Not by ``ru_maxrss``: that counts what this process had when it forked.
    """
    most = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            most = max(most, int(found[1]) * 1024)
        time.sleep(0.05)
    return most
