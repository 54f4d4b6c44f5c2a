"""``op.add_source`` and ``op.drop_source`` in a migration of the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from tests.acceptance.commands import psql
from tests.sources import SQL

ENV = """
import os

import psycopg
import sqlalchemy
from alembic import context

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(os.environ["OWN_URL"]))
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()
"""
REVISION = """
import sqlalchemy as sa
import searchapp.integrations.alembic
from alembic import op

revision, down_revision, branch_labels, depends_on = "1", None, None, None

def upgrade():
    columns = sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("body", sa.Text)
    op.create_table("articles", *columns, schema="public")
    op.add_source("articles", table="public.articles", key=["id"], text="body", where="body <> 'it''s 100%: a :colon'")

def downgrade():
    op.drop_source("articles")
    op.drop_table("articles", schema="public")
"""


@pytest.fixture
def sql(url: str) -> Iterator[SQL]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def config(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("OWN_URL", url)
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "versions" / "1_articles.py").write_text(REVISION)
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("version_locations", str(tmp_path / "versions"))
    config.set_main_option("path_separator", "newline")
    return config


def test_a_migration_adds_a_source_and_takes_it_away(sql: SQL, config: Config) -> None:
    command.upgrade(config, "head")
    assert sources(sql) == [("articles", "public.articles", "(body <> 'it''s 100%: a :colon'::text)")]
    sql.execute("INSERT INTO public.articles VALUES (1, 'a text')")
    assert sql.execute("SELECT key FROM searchapp_data.changes").fetchall() == [("1",)]
    command.downgrade(config, "base")
    assert sources(sql) == []


def test_a_script_does_the_same(sql: SQL, config: Config, url: str, tmp_path: Path) -> None:
    with (tmp_path / "up.sql").open("w") as file:
        config.output_buffer = file
        command.upgrade(config, "head", sql=True)
    assert "ERROR" not in psql(url, (tmp_path / "up.sql").read_text())
    assert sources(sql) == [("articles", "public.articles", "(body <> 'it''s 100%: a :colon'::text)")]
    with (tmp_path / "down.sql").open("w") as file:
        config.output_buffer = file
        command.downgrade(config, "1:base", sql=True)
    assert "ERROR" not in psql(url, (tmp_path / "down.sql").read_text())
    assert sources(sql) == []


def sources(sql: SQL) -> list[tuple[str, str, str]]:
    return sql.execute('SELECT name, "table", "where" FROM searchapp.sources').fetchall()
