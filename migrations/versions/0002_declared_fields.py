"""Declared fields of collections, and what was measured of spaces.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

S = "searchapp_data"

# The indexes of declared fields are data, as the partitions are that they stand on.
DROP_FIELD_INDEXES = """
DO $$
DECLARE
  made regclass;
BEGIN
  FOR made IN
    SELECT c.oid::regclass FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'searchapp_data'::regnamespace AND c.relkind = 'i'
      AND c.relname ~ '^documents_[0-9]+_field_[0-9a-f]+$'
  LOOP
    EXECUTE format('DROP INDEX %s', made);
  END LOOP;
END $$
"""


def upgrade() -> None:
    op.add_column(
        "collections",
        sa.Column("settings", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        schema=S,
    )
    op.add_column("spaces", sa.Column("recall", sa.Float(), nullable=True), schema=S)
    op.add_column("spaces", sa.Column("measured_at", postgresql.TIMESTAMP(timezone=True), nullable=True), schema=S)
    # that ids are unique the planner knows by the partitioned table alone, which loads have not analysed so far
    op.execute(f"ANALYZE {S}.documents (id)")


def downgrade() -> None:
    op.execute(DROP_FIELD_INDEXES)
    op.drop_column("spaces", "measured_at", schema=S)
    op.drop_column("spaces", "recall", schema=S)
    op.drop_column("collections", "settings", schema=S)
