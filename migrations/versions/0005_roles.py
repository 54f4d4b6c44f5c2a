"""Roles, and who owns what: the rights themselves are given at the end of every upgrade.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

from alembic import op

from searchapp import schema

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

FILES = ("collections",)


def upgrade() -> None:
    op.execute(schema.create_schemas("searchapp", "searchapp_private"))
    for statement in schema.standing("roles"):
        op.execute(statement)
    for statement in schema.statements(revision, *FILES):
        op.execute(statement)


def downgrade() -> None:
    """Roles stay, and what belongs to them: other databases may have them too."""
    op.execute("SET LOCAL client_min_messages = warning")  # a notice for all that goes
    for statement in schema.drops(revision, *FILES):
        op.execute(statement)
    op.execute("DROP SCHEMA searchapp_private CASCADE")
    op.execute("DROP SCHEMA searchapp CASCADE")
    op.execute("SET LOCAL client_min_messages TO DEFAULT")
