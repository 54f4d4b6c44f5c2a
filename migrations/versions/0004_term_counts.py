"""How many documents have a word, kept beside the postings.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

S = "searchapp_data"


def upgrade() -> None:
    op.create_table(
        "term_counts",
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("term", sa.Text(collation="C"), nullable=False),
        schema=S,
    )
    # its rows are deleted, and have no key: without this not where the database publishes its changes
    op.execute(f"ALTER TABLE {S}.term_counts REPLICA IDENTITY FULL")
    # of words that are there; none is written meanwhile
    op.execute(f"LOCK TABLE {S}.postings IN SHARE MODE")
    op.execute(
        f"INSERT INTO {S}.term_counts (collection_id, term, documents)"
        f" SELECT collection_id, term, count(*) FROM {S}.postings GROUP BY collection_id, term"
    )
    op.create_index(
        "term_counts_collection_id_term_idx",
        "term_counts",
        ["collection_id", "term"],
        schema=S,
        postgresql_include=["documents"],
    )


def downgrade() -> None:
    op.drop_table("term_counts", schema=S)
