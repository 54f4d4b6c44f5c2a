"""Sources: users' tables that are kept in step.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from searchapp import schema

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

S = "searchapp_data"
NOW = sa.text("now()")
TIMESTAMP = postgresql.TIMESTAMP(timezone=True)
TEXTS = sa.ARRAY(sa.Text())

FILES = ("search", "sources", "triggers", "adding", "status")

# With the functions the triggers on users' tables go.
DROP_TRIGGERS = """
DO $$
DECLARE
  source searchapp_data.sources;
BEGIN
  FOR source IN SELECT s.* FROM searchapp_data.sources s LOOP
    PERFORM searchapp_private.drop_triggers(source);
  END LOOP;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "sources",
        sa.Column("id", sa.Integer(), sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
        sa.Column("collection", sa.Text()),
        sa.Column("collection_id", sa.Integer()),
        sa.Column("into_column", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("table_schema", sa.Text(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("key", TEXTS, nullable=False),
        sa.Column("key_types", TEXTS, nullable=False),
        sa.Column("title", sa.Text()),
        sa.Column("text", TEXTS, nullable=False),
        sa.Column("metadata", TEXTS, nullable=False),
        sa.Column("condition", sa.Text()),
        sa.Column("watched", TEXTS, nullable=False),
        sa.Column("polled_by", sa.Text()),
        sa.Column("polled_until", sa.Text()),
        sa.Column("polled_latest", sa.Text()),
        sa.Column("polled_at", TIMESTAMP),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("backfilled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("backfilled_until", sa.Text()),
        sa.Column("enqueued", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rows", sa.Double(), server_default="0", nullable=False),
        sa.Column("checked_at", TIMESTAMP),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.CheckConstraint("state IN ('running', 'paused', 'broken')", name="state"),
        schema=S,
    )
    op.create_table(
        "source_rows",
        sa.Column("source_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        schema=S,
    )
    op.create_table(
        "failures",
        sa.Column("source_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("retry_at", TIMESTAMP),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("at", TIMESTAMP, server_default=NOW, nullable=False),
        schema=S,
    )
    op.create_index("failures_retry_at_idx", "failures", ["retry_at"], schema=S)
    op.add_column("workers", sa.Column("rates", postgresql.JSONB(), server_default="{}", nullable=False), schema=S)
    op.create_table(
        "changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("key", sa.Text()),
        sa.Column("at", TIMESTAMP, server_default=NOW, nullable=False),
        schema=S,
    )
    op.create_index("changes_source_id_lane_id_idx", "changes", ["source_id", "lane", "id"], schema=S)
    for statement in schema.statements(revision, *FILES):
        op.execute(statement)


def downgrade() -> None:
    op.execute(DROP_TRIGGERS)
    for view in ("change_status", "source_status", "sources"):
        op.execute(f"DROP VIEW searchapp.{view}")
    for statement in schema.drops(revision, "sources", "triggers", "adding"):
        op.execute(statement)
    for table in ("changes", "failures", "source_rows", "sources"):
        op.drop_table(table, schema=S)
    op.drop_column("workers", "rates", schema=S)
