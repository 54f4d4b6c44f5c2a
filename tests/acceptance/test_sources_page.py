"""What docs/sources.md shows is what comes out: of the command, in psql, from Python, in a migration."""

from __future__ import annotations

import re
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, MetaData, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import searchapp
from searchapp.client import Client
from searchapp.encoders.registry import Registry
from tests.acceptance.commands import psql
from tests.acceptance.test_sql_page import run, trimmed
from tests.conftest import ROOT
from tests.workers import wait_for, worker_process

BLOCK = re.compile(r"^```(sh|sql|python|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
IN_STEP = """
SELECT bool_and(backfilled AND pending = 0 AND checked_at IS NOT NULL OR state <> 'running')
FROM searchapp.source_status
"""


class Base(DeclarativeBase):
    metadata = MetaData(schema="public")


class Product(Base):
    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def test_the_page_is_true(url: str, engine: Engine, db: Client, registry: Registry, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    blocks = [*BLOCK.findall(page), ("", "")]
    assert len(blocks) > 50
    with ExitStack() as workers:
        for (kind, block), (follows, shown) in pairwise(blocks):
            said = ""
            if kind == "sh":
                for line in block.splitlines():
                    if line == "searchapp worker &":
                        workers.enter_context(worker_process(url))
                    else:
                        said += run(url, tmp_path, line)
            elif kind == "sql":
                said = psql(url, block)
            elif "def upgrade" in block:
                migrate(engine, block)
            elif kind == "python":
                join(engine, db, registry, block)
            if follows == "text":
                assert trimmed(said) == trimmed(shown), block
            wait_for(lambda: in_step(url))
    left = psql(url, "SELECT array_agg(name ORDER BY name) FROM searchapp.sources")
    assert "{items,notes,product_vectors}" in left


def in_step(url: str) -> bool:
    """Whether nothing waits: the moment that the page speaks of is over."""
    with psycopg.connect(url) as connection:
        row = connection.execute(IN_STEP).fetchone()
    assert row is not None
    return row[0] is not False


def join(engine: Engine, db: Client, registry: Registry, block: str) -> None:
    """Run what joins hits to a class."""
    (vector,) = registry.encoder("all-MiniLM-L6-v2").encode_queries(["sleeping outside"])
    with Session(engine) as session:
        names: dict[str, Any] = {"searchapp": searchapp, "select": select, "Product": Product}
        names |= {"db": db, "session": session, "vector": vector}
        exec(block, names)
    assert names["rows"][0].name == "Tent"


def migrate(engine: Engine, block: str) -> None:
    """Run a migration, upwards and downwards."""
    names: dict[str, Any] = {}
    exec(block, names)
    for step, expected in (("upgrade", 1), ("downgrade", 0)):
        with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
            names[step]()
            found = connection.exec_driver_sql("SELECT count(*) FROM searchapp.sources WHERE name = 'articles'")
            assert found.scalar() == expected
