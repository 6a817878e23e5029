"""sums of observed and expected trials."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "statistics",
        sa.Column("bundle", sa.String(length=128), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False, comment="since 1970, at whose begin the trials were over"),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False, comment="kind of message"),
        sa.Column("step", sa.Integer(), nullable=False, comment="1, or 2 for all later ones"),
        sa.Column("observed", sa.BigInteger(), nullable=False, comment="in millionths"),
        sa.Column("expected", sa.BigInteger(), nullable=False, comment="in millionths"),
        sa.PrimaryKeyConstraint("bundle", "hour", "stage", "channel", "kind", "step"),
    )
