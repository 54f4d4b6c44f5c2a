"""Postings for lexical search, and runs of evaluations.

Collections that are there stay without words until ``searchapp index words`` makes them.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

S = "searchapp_data"
TIMESTAMP = postgresql.TIMESTAMP(timezone=True)

# A text search vector has no positions above 16,383, and 255 of a word at most: longer texts are read piece by piece.
# Pieces end at whitespace, where there is any. A substring takes as long as the text is, so that pieces of a very long
# one are cut out of longer pieces.
CREATE_SLICES = """
CREATE FUNCTION searchapp_data.slices(body text, size int, overlap int DEFAULT 0) RETURNS SETOF text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE ROWS 1 AS $$
DECLARE
  total int := length(body);
  start int := 0;  -- the characters before the piece
  piece text;
  tail text;
  kept int;
BEGIN
  IF total > 16 * size THEN
    RETURN QUERY SELECT s.* FROM searchapp_data.slices(body, 8 * size, overlap) b (block)
      CROSS JOIN LATERAL searchapp_data.slices(b.block, size, overlap) s;
    RETURN;
  END IF;
  LOOP
    piece := substr(body, start + 1, size);
    IF start + length(piece) >= total THEN
      RETURN NEXT piece;
      RETURN;
    END IF;
    tail := right(piece, 1000);
    kept := length(substring(tail FROM '^.*\\s'));
    IF kept IS NOT NULL THEN
      piece := left(piece, length(piece) - length(tail) + kept);
    ELSE  -- a long word: all of it, where it ends soon
      piece := coalesce(substring(substr(body, start + 1, length(piece) + 8000) FROM '^.*\\s'), piece);
    END IF;
    RETURN NEXT piece;
    start := start + length(piece);
    IF overlap > 0 AND length(piece) > 2 * overlap THEN
      start := start - overlap + coalesce(length(substring(right(piece, overlap) FROM '^\\S*')), 0);
    END IF;
  END LOOP;
END $$
"""
# A text search vector keeps 255 positions of a word: where that may not be enough, the text is read in pieces.
CREATE_HAS_PHRASE = """
CREATE FUNCTION searchapp_data.has_phrase(language regconfig, body text, phrase text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS $$
DECLARE
  wanted tsquery := phraseto_tsquery(language, phrase);
  longest int := 200 + 2 * length(phrase);
  words tsvector;
  piece text;
BEGIN
  IF octet_length(body) <= 16000 THEN
    words := to_tsvector(language, body);
    IF words @@ wanted THEN
      RETURN true;
    ELSIF octet_length(body) < 512 OR NOT EXISTS (SELECT FROM unnest(words) WHERE cardinality(positions) > 254) THEN
      RETURN false;
    END IF;
  END IF;
  FOR piece IN SELECT * FROM searchapp_data.slices(body, 500 + 3 * longest, longest) LOOP
    IF to_tsvector(language, piece) @@ wanted THEN
      RETURN true;
    END IF;
  END LOOP;
  RETURN false;
END $$
"""
DROP_POSTINGS_LEFT_BEHIND = """
DO $$
DECLARE
  partition regclass;
BEGIN
  FOR partition IN
    SELECT c.oid::regclass FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'searchapp_data'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
      AND c.relname ~ '^postings_[0-9]+$'
  LOOP
    EXECUTE format('DROP TABLE %s', partition);
  END LOOP;
END $$
"""


def upgrade() -> None:
    op.add_column("collections", sa.Column("language", sa.Text(), nullable=True), schema=S)
    op.add_column("collections", sa.Column("backfilled_until", sa.Uuid(), nullable=True), schema=S)
    op.add_column("collections", sa.Column("documents", sa.Float(), server_default="0", nullable=False), schema=S)
    op.add_column("collections", sa.Column("mean_length", sa.Float(), server_default="0", nullable=False), schema=S)
    op.create_table(
        "postings",
        sa.Column("collection_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("document_length", sa.Integer(), nullable=False),
        sa.Column("frequency", sa.Integer(), nullable=False),
        sa.Column("term", sa.Text(collation="C"), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint(
            "collection_id",
            "term",
            "document_id",
            name="postings_pkey",
            postgresql_include=["frequency", "document_length"],
        ),
        schema=S,
        postgresql_partition_by="LIST (collection_id)",
    )
    op.execute(CREATE_SLICES)
    op.execute(CREATE_HAS_PHRASE)
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), sa.Identity(), primary_key=True),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("measures", postgresql.JSONB(), nullable=False),
        sa.Column("p50", sa.Float(), nullable=False),
        sa.Column("p95", sa.Float(), nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=sa.text("now()"), nullable=False),
        schema=S,
    )
    op.create_table(
        "judged_queries",
        sa.Column(
            "run_id",
            sa.Integer(),
            sa.ForeignKey(f"{S}.runs.id", name="judged_queries_run_id_fkey", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("query_id", sa.Text(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("measures", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "query_id", name="judged_queries_pkey"),
        schema=S,
    )


def downgrade() -> None:
    op.drop_table("judged_queries", schema=S)
    op.drop_table("runs", schema=S)
    op.execute("DROP FUNCTION searchapp_data.has_phrase(regconfig, text, text)")
    op.execute("DROP FUNCTION searchapp_data.slices(text, int, int)")
    op.execute(DROP_POSTINGS_LEFT_BEHIND)
    op.drop_table("postings", schema=S)
    for column in ("mean_length", "documents", "backfilled_until", "language"):
        op.drop_column("collections", column, schema=S)
