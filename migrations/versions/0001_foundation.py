"""Documents, chunks and their embeddings.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

S = "searchapp_data"
NOW = sa.text("now()")
TIMESTAMP = postgresql.TIMESTAMP(timezone=True)

# One block for both ways of migrating: offline there is nobody to look first. The extension may stand in any schema.
PREPARE = """
DO $$
BEGIN
  IF current_setting('server_version_num')::int < 160000 THEN
    RAISE EXCEPTION 'the server runs PostgreSQL %; searchapp needs 16 or newer',
      current_setting('server_version_num')::int / 10000 USING ERRCODE = 'SA010';
  END IF;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'vector') THEN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'vector') THEN
      RAISE EXCEPTION 'pgvector is not installed on this server; install it (0.8.2 or newer) and try again'
        USING ERRCODE = 'SA011';
    END IF;
    BEGIN
      CREATE EXTENSION vector SCHEMA public;
    EXCEPTION
      WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'role % may not create extensions; ask an administrator to run: CREATE EXTENSION vector',
          current_user USING ERRCODE = 'SA011';
      WHEN invalid_schema_name THEN
        RAISE EXCEPTION 'there is no schema public; choose another: CREATE EXTENSION vector SCHEMA ...'
          USING ERRCODE = 'SA011';
    END;
  END IF;
  IF (SELECT string_to_array(substring(extversion FROM '^[0-9.]+'), '.')::int[] < '{0,8,2}'
      FROM pg_catalog.pg_extension WHERE extname = 'vector') THEN
    RAISE EXCEPTION 'the database has pgvector %; searchapp needs 0.8.2 or newer: ALTER EXTENSION vector UPDATE',
      (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector') USING ERRCODE = 'SA010';
  END IF;
  PERFORM set_config('search_path', quote_ident(n.nspname), true)
  FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
  WHERE e.extname = 'vector';
END $$
"""

DROP_LEFT_BEHIND = """
DO $$
DECLARE
  partition regclass;
BEGIN
  FOR partition IN
    SELECT c.oid::regclass FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'searchapp_data'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
      AND c.relname ~ '^(documents|chunks)_[0-9]+$'
  LOOP
    EXECUTE format('DROP TABLE %s', partition);
  END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute(PREPARE)
    op.create_table(
        "models",
        sa.Column("id", sa.Integer(), sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("max_tokens", sa.Integer(), nullable=False),
        sa.Column("query_prefix", sa.Text(), server_default="", nullable=False),
        sa.Column("document_prefix", sa.Text(), server_default="", nullable=False),
        sa.UniqueConstraint("name", "revision", name="models_name_revision_key"),
        schema=S,
    )
    op.create_table(
        "collections",
        sa.Column("id", sa.Integer(), sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="ready", nullable=False),
        sa.Column("active_space", sa.Integer(), nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.CheckConstraint("state IN ('ready', 'retired')", name=op.f("collections_state_check")),
        schema=S,
    )
    op.create_index(
        "collections_name_key",
        "collections",
        ["name"],
        unique=True,
        schema=S,
        postgresql_where=sa.text("state = 'ready'"),
    )
    op.create_table(
        "spaces",
        sa.Column("id", sa.Integer(), sa.Identity(), primary_key=True),
        sa.Column(
            "collection_id",
            sa.Integer(),
            sa.ForeignKey(f"{S}.collections.id", name="spaces_collection_id_fkey"),
            nullable=False,
        ),
        sa.Column(
            "model_id", sa.Integer(), sa.ForeignKey(f"{S}.models.id", name="spaces_model_id_fkey"), nullable=False
        ),
        sa.Column("chunking", postgresql.JSONB(), nullable=False),
        sa.Column("state", sa.Text(), server_default="building", nullable=False),
        sa.Column("ef_search", sa.Integer(), server_default="100", nullable=False),
        sa.Column("chunks_per_document", sa.Float(), server_default="1", nullable=False),
        sa.CheckConstraint("state IN ('building', 'ready', 'retired')", name=op.f("spaces_state_check")),
        schema=S,
    )
    op.create_index("spaces_collection_id_idx", "spaces", ["collection_id"], schema=S)
    op.create_foreign_key(
        "collections_active_space_fkey",
        "collections",
        "spaces",
        ["active_space"],
        ["id"],
        source_schema=S,
        referent_schema=S,
    )
    op.create_table(
        "documents",
        sa.Column("collection_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("collection_id", "id", name="documents_pkey"),
        schema=S,
        postgresql_partition_by="LIST (collection_id)",
    )
    op.create_index("documents_key_idx", "documents", ["key"], schema=S)
    op.create_index(
        "documents_metadata_idx",
        "documents",
        ["metadata"],
        schema=S,
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )
    op.create_table(
        "chunks",
        sa.Column("space_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("embedding", VECTOR(), nullable=False),
        sa.PrimaryKeyConstraint("space_id", "document_id", "position", name="chunks_pkey"),
        schema=S,
        postgresql_partition_by="LIST (space_id)",
    )


def downgrade() -> None:
    """Take away all tables, the partitions that a killed drop left behind among them. The extension stays."""
    op.execute(DROP_LEFT_BEHIND)
    op.drop_table("chunks", schema=S)
    op.drop_table("documents", schema=S)
    op.drop_constraint("collections_active_space_fkey", "collections", schema=S)
    op.drop_table("spaces", schema=S)
    op.drop_table("collections", schema=S)
    op.drop_table("models", schema=S)
