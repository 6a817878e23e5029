"""amounts of budgets that operators changed while the service ran."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "budget_changes",
        sa.Column("budget", sa.String(length=64), nullable=False, comment="name in the rules file"),
        sa.Column("number", sa.Integer(), nullable=False, comment="of the budget's changes, from 1; the latest holds"),
        sa.Column("change_time", sa.BigInteger(), nullable=False),
        sa.Column("amount_micros", sa.BigInteger(), nullable=True, comment="null: what the rules file says again"),
        sa.Column(
            "file_micros",
            sa.BigInteger(),
            nullable=False,
            comment="what the rules file said then; with another amount there, the file holds",
        ),
        sa.Column("reason", sa.String(length=512), nullable=False),
        sa.PrimaryKeyConstraint("budget", "number"),
        comment="what operators changed, in order",
    )
