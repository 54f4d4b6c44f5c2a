"""Sources in migrations of somebody's own: an Alembic environment as ``alembic init`` makes it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Engine

from searchapp import database
from searchapp.encoders.registry import Registry
from tests.acceptance.commands import psql
from tests.sources import SQL, QuickRegistry, keep, stored

MIGRATION = """
import sqlalchemy as sa
from alembic import op

import searchapp.integrations.alembic

revision = "1"
down_revision = None


def upgrade():
    op.create_table(
        "items",
        sa.Column("shop", sa.Integer, primary_key=True),
        sa.Column("sku", sa.Text, primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("price", sa.Integer),
        schema="public",
    )
    op.execute("INSERT INTO public.items VALUES (1, 'cap', 'Cap', 20), (1, 'hat', 'Hat', 200), (2, 'cap', '100%', 9)")
    op.add_source(
        "wares",
        table="public.items",
        key=["shop", "sku"],
        text="name",
        metadata=["price"],
        where="price::int < 100 AND name NOT LIKE '100%' AND name <> 'it''s :odd'",
        collection="goods",
    )


def downgrade():
    op.drop_source("wares")
    op.drop_table("items", schema="public")
"""
COLUMN = """
import searchapp.integrations.alembic
from alembic import op

revision = "2"
down_revision = "1"


def upgrade():
    op.execute("ALTER TABLE public.items ADD embedding vector(384), ADD changed timestamptz DEFAULT now()")
    op.add_source(
        "vectors",
        table="public.items",
        key=["shop", "sku"],
        text=["name"],
        into_column="embedding",
        poll="changed",
    )


def downgrade():
    op.drop_source("vectors")
    op.execute("ALTER TABLE public.items DROP embedding, DROP changed")
"""


@pytest.fixture
def config(url: str, tmp_path: Path) -> Config:
    """The configuration of such an environment on this test's database."""
    folder = tmp_path / "migrations"
    command.init(Config(tmp_path / "alembic.ini", stdout=io.StringIO()), str(folder))
    for number, migration in enumerate((MIGRATION, COLUMN), start=1):
        (folder / "versions" / f"{number}.py").write_text(migration)
    made = Config()  # without the file, which would set up logging for all of this process
    made.set_main_option("script_location", str(folder))
    made.set_main_option("path_separator", "os")
    made.set_main_option("sqlalchemy.url", address(url).replace("%", "%%"))
    return made


def address(url: str) -> str:
    """The address as SQLAlchemy writes it."""
    parts: dict[str, Any] = database.parse_url(url)
    user, name = parts.pop("user"), parts.pop("dbname")
    made = URL.create("postgresql+psycopg", user, database=name, query={key: str(each) for key, each in parts.items()})
    return made.render_as_string(hide_password=False)


def sources(sql: SQL) -> list[tuple[Any, ...]]:
    columns = 'name, "table", collection, into_column, key, text, metadata, polled_by'
    return sql.execute(f"SELECT {columns} FROM searchapp.sources ORDER BY name").fetchall()


ITEMS: tuple[Any, ...] = ("wares", "public.items", "goods", None, ["shop", "sku"], ["name"], ["price"], None)
VECTORS: tuple[Any, ...] = ("vectors", "public.items", None, "embedding", ["shop", "sku"], ["name"], [], "changed")


def test_a_migration_makes_a_table_and_its_source(sql: SQL, engine: Engine, config: Config, registry: Registry) -> None:
    command.upgrade(config, "head")
    assert sources(sql) == [VECTORS, ITEMS]
    quick = QuickRegistry(registry)
    keep(engine, quick)
    assert [row[0] for row in stored(sql)] == ["{1,cap}"]
    assert sql.execute("SELECT count(*), count(embedding) FROM public.items").fetchone() == (3, 3)
    sql.execute("UPDATE public.items SET price = 50 WHERE sku = 'hat'")
    keep(engine, quick)
    assert [row[0] for row in stored(sql)] == ["{1,cap}", "{1,hat}"]
    command.downgrade(config, "1")
    assert sources(sql) == [ITEMS]
    command.downgrade(config, "base")
    assert sources(sql) == []
    assert sql.execute("SELECT to_regclass('public.items')").fetchone() == (None,)
    assert sql.execute("SELECT name, documents FROM searchapp.collections").fetchall() == [("goods", 2)]


def test_the_same_is_written_as_sql(url: str, sql: SQL, config: Config) -> None:
    def written(revisions: str, run: Any) -> str:
        config.output_buffer = io.StringIO()
        run(config, revisions, sql=True)
        return config.output_buffer.getvalue()

    assert "ERROR" not in psql(url, written("head", command.upgrade))
    assert sources(sql) == [VECTORS, ITEMS]
    where = sql.execute("SELECT \"where\" FROM searchapp.sources WHERE name = 'wares'").fetchone()
    assert where == ("((price < 100) AND (name !~~ '100%'::text) AND (name <> 'it''s :odd'::text))",)
    assert "ERROR" not in psql(url, written("2:base", command.downgrade))
    assert sources(sql) == []


def test_a_migration_that_fails_leaves_nothing(sql: SQL, config: Config) -> None:
    script = Path(config.get_main_option("script_location") or "") / "versions" / "1.py"
    script.write_text(MIGRATION.replace("price::int < 100", "random() < 1"))
    with pytest.raises(Exception, match="functions in the condition must be marked IMMUTABLE"):
        command.upgrade(config, "head")
    assert sources(sql) == []
    assert sql.execute("SELECT to_regclass('public.items')").fetchone() == (None,)
