"""Search from SQL.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

from searchapp import schema

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Those that others depend on are in the way, and named by the error.
DROP_COLLECTION_VIEWS = """
DO $$
DECLARE
  name text;
BEGIN
  FOR name IN SELECT c.name FROM searchapp_data.collections c LOOP
    EXECUTE format('DROP VIEW IF EXISTS searchapp.%I', name);
  END LOOP;
END $$
"""
FILES = ("filters", "spaces", "nearest", "words", "search", "views")


def upgrade() -> None:
    for statement in schema.statements(revision, *FILES):
        op.execute(statement)


def downgrade() -> None:
    op.execute(DROP_COLLECTION_VIEWS)
    for statement in schema.drops(revision, *FILES):
        op.execute(statement)
