"""Fences of drivers, whose searches these are, lost workers and placements of trials, proposals and jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From the schema before to this one."""
    op.add_column("search", sa.Column("fence", sa.Integer(), server_default="0", nullable=False))
    op.add_column("search", sa.Column("owner", sa.String(length=200), nullable=True))
    op.add_column("search", sa.Column("tags", sa.JSON(), server_default="[]", nullable=False))
    op.add_column("search", sa.Column("note", sa.Text(), server_default="", nullable=False))
    op.add_column("search", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("trial", sa.Column("attempts", sa.Integer(), server_default="0", nullable=False))
    op.add_column("trial", sa.Column("placement", sa.JSON(), nullable=True))
    op.create_table(
        "proposal",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("search_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=128), nullable=False),
        sa.Column("arch", sa.JSON(), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["search_id"], ["search.id"], name=op.f("fk_proposal_search_id_search")),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name=op.f("fk_proposal_trial_id_trial")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposal")),
        sa.UniqueConstraint("search_id", "digest", name=op.f("uq_proposal_search_id_digest")),
    )
    op.create_index(op.f("ix_proposal_trial_id"), "proposal", ["trial_id"], unique=False)
    op.create_table(
        "job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("search", sa.String(length=200), nullable=False),
        sa.Column("address", sa.String(length=500), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("plugins", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("key", name=op.f("uq_job_key")),
        sa.UniqueConstraint("name", name=op.f("uq_job_name")),
    )
    op.create_index(op.f("ix_job_search"), "job", ["search"], unique=False)


def downgrade() -> None:
    """Back to the schema before."""
    op.drop_table("job")
    op.drop_table("proposal")
    for column in ("placement", "attempts"):
        op.drop_column("trial", column)
    for column in ("archived_at", "note", "tags", "owner", "fence"):
        op.drop_column("search", column)
