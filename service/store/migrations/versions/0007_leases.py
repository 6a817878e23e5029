"""money of budgets that is leased to replicas."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("budget", sa.String(length=64), nullable=False, comment="name in the rules file"),
        sa.Column("period_start", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=32), nullable=False, comment="of one process, new at each start"),
        sa.Column(
            "left_micros",
            sa.BigInteger(),
            nullable=False,
            comment="reserved in budgets, and not yet for any send; the holder alone may reserve it",
        ),
        sa.Column(
            "reserved_micros",
            sa.BigInteger(),
            nullable=False,
            comment="to be added to budgets, for reservations that the holder settled",
        ),
        sa.Column("committed_micros", sa.BigInteger(), nullable=False, comment="to be added to budgets, likewise"),
        sa.Column("expire_time", sa.BigInteger(), nullable=False, comment="from then on anybody may take it back"),
        sa.PrimaryKeyConstraint("budget", "period_start", "holder"),
    )
