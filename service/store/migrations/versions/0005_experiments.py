"""experiments: who was exposed to what, how they are run, and what operators changed; what customers paid for orders."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    is_postgres = op.get_bind().dialect.name == "postgresql"
    decision_id = sa.String(length=36, collation="C") if is_postgres else sa.String(length=36)
    with op.batch_alter_table("outcomes", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "revenue_micros", sa.BigInteger(), nullable=True, comment="what was paid for an order, or given back"
            )
        )
    op.create_table(
        "exposures",
        sa.Column("experiment", sa.String(length=64), nullable=False, comment="name in the rules file"),
        sa.Column("customer_key", sa.String(length=32), nullable=False, comment="the person, across identities"),
        sa.Column("variant", sa.String(length=64), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False, comment="P(variant | exposed), at the exposure"),
        sa.Column("expose_time", sa.BigInteger(), nullable=False, comment="of the first decision that was part of it"),
        sa.Column("decision_id", decision_id, nullable=False, comment="that decision"),
        sa.Column("rules_name", sa.String(length=80), nullable=False, comment="version and digest of the rules file"),
        sa.Column(
            "is_mixed", sa.Boolean(), nullable=False, comment="whether two profiles of different variants became one"
        ),
        sa.PrimaryKeyConstraint("experiment", "customer_key"),
    )
    with op.batch_alter_table("exposures", schema=None) as batch_op:
        batch_op.create_index("exposures_by_customer", ["customer_key"], unique=False)
    op.create_table(
        "experiments",
        sa.Column("experiment", sa.String(length=64), nullable=False, comment="name in the rules file"),
        sa.Column("state", sa.String(length=16), nullable=False, comment="running, paused or stopped"),
        sa.Column("exposure", sa.Float(), nullable=True, comment="share exposed; null: as the rules file says"),
        sa.PrimaryKeyConstraint("experiment"),
        comment="how experiments are run at present, where that is not as the rules file says",
    )
    op.create_table(
        "experiment_changes",
        sa.Column("experiment", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="of the experiment's changes, from 1"),
        sa.Column("change_time", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("exposure", sa.Float(), nullable=True),
        sa.Column("reason", sa.String(length=512), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "number"),
        comment="what operators changed, in order",
    )
