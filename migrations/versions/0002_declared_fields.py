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

# That ids are unique the planner knows by the partitioned table alone, which loads have not analysed so far.
ANALYZE_IDS = """
DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 180000 THEN
    EXECUTE 'ANALYZE ONLY searchapp_data.documents (id)';
  ELSE
    EXECUTE 'ANALYZE searchapp_data.documents (id)';
  END IF;
END $$
"""
NOTE_SIZES = """
UPDATE searchapp_data.spaces SET chunks = greatest(c.reltuples, 0)
FROM pg_catalog.pg_class c WHERE c.oid = to_regclass('searchapp_data.chunks_' || spaces.id)
"""
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
    op.execute(ANALYZE_IDS)  # first: what follows locks tables that every search reads
    op.add_column(
        "collections",
        sa.Column("settings", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        schema=S,
    )
    op.add_column("spaces", sa.Column("chunks", sa.Float(), server_default="0", nullable=False), schema=S)
    op.execute(NOTE_SIZES)
    op.add_column("spaces", sa.Column("recall", sa.Float(), nullable=True), schema=S)
    op.add_column("spaces", sa.Column("measured_at", postgresql.TIMESTAMP(timezone=True), nullable=True), schema=S)


def downgrade() -> None:
    op.execute(DROP_FIELD_INDEXES)
    op.drop_column("spaces", "measured_at", schema=S)
    op.drop_column("spaces", "recall", schema=S)
    op.drop_column("spaces", "chunks", schema=S)
    op.drop_column("collections", "settings", schema=S)
