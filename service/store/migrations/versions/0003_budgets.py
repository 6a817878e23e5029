"""budgets and reservations."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("budget", sa.String(length=64), nullable=False, comment="name in the rules file"),
        sa.Column("period_start", sa.BigInteger(), nullable=False),
        sa.Column(
            "reserved_micros", sa.BigInteger(), nullable=False, comment="set aside for sends whose outcome is open"
        ),
        sa.Column("committed_micros", sa.BigInteger(), nullable=False, comment="spent"),
        sa.Column("held_price", sa.Float(), nullable=False, comment="shadow price that the charged one is made from"),
        sa.Column("price_time", sa.BigInteger(), nullable=False, comment="when held_price was brought up to date"),
        sa.PrimaryKeyConstraint("budget", "period_start"),
    )
    op.create_table(
        "reservations",
        sa.Column("decision_id", sa.String(length=36), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("budget", sa.String(length=64), nullable=False),
        sa.Column(
            "period_start", sa.BigInteger(), nullable=False, comment="of the period that pays, that of the decision"
        ),
        sa.Column("price_micros", sa.BigInteger(), nullable=False, comment="what was set aside"),
        sa.Column("reserved_micros", sa.BigInteger(), nullable=False, comment="still set aside; 0 once settled"),
        sa.Column(
            "committed_micros",
            sa.BigInteger(),
            nullable=False,
            comment="what it cost; 0 while open and when released",
        ),
        sa.Column(
            "expire_time",
            sa.BigInteger(),
            nullable=False,
            comment="from then on it counts as sent until an outcome says otherwise",
        ),
        sa.PrimaryKeyConstraint("decision_id", "step", "budget"),
    )
    with op.batch_alter_table("reservations", schema=None) as batch_op:
        batch_op.create_index("reservations_by_expiry", ["reserved_micros", "expire_time"], unique=False)
