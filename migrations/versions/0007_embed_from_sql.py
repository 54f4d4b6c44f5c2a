"""Embeddings from SQL.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from searchapp import schema

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

S = "searchapp_data"
NOW = sa.text("now()")
TIMESTAMP = postgresql.TIMESTAMP(timezone=True)

FILES = ("cache", "asking", "link", "embed")

# dblink is ours where it stands in our schema. The asker's role stays, as all roles do, but has no right here any more.
DROP_LINK = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_foreign_server WHERE srvname = 'searchapp_self') THEN
    DROP SERVER searchapp_self CASCADE;
  END IF;
  IF EXISTS (
    SELECT FROM pg_catalog.pg_extension
    WHERE extname = 'dblink' AND extnamespace = 'searchapp_private'::regnamespace)
  THEN
    BEGIN
      DROP EXTENSION dblink;
    EXCEPTION WHEN insufficient_privilege THEN
      NULL;  -- an administrator's; where it stands nobody else comes
    END;
  END IF;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Integer(), sa.Identity(), primary_key=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("started_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.Column("seen_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.Column("doing", sa.Text(), nullable=False),
        schema=S,
    )
    for statement in schema.statements(revision, *FILES):
        op.execute(statement)


def downgrade() -> None:
    op.execute(DROP_LINK)
    for statement in schema.drops(revision, "asking", "link", "embed"):
        op.execute(statement)
    op.execute("DROP VIEW searchapp.worker_status")
    for table in ("secrets", "query_embeddings", "query_requests"):
        op.drop_table(table, schema="searchapp_private")
    op.drop_table("workers", schema=S)
