"""what several replicas on one database need; on PostgreSQL, a decision log in partitions."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    is_postgres = op.get_bind().dialect.name == "postgresql"
    decision_id = sa.String(length=36, collation="C") if is_postgres else sa.String(length=36)
    with op.batch_alter_table("customers", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "version",
                sa.BigInteger(),
                nullable=False,
                server_default="0",
                comment="goes up with all that a decision about the person may depend on",
            )
        )
    op.create_table(
        "facts",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        comment="what is true of the database as a whole",
    )
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String(length=128), nullable=False, comment="the caller's idempotency key"),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("decision_id", decision_id, nullable=False),
        sa.PrimaryKeyConstraint("request_id", "step"),
        comment="which decision a request made: unique over all partitions of the decision log",
    )
    op.execute(
        "INSERT INTO requests (request_id, step, decision_id) SELECT request_id, step, decision_id FROM decisions"
    )
    if is_postgres:
        _partition()
    else:
        op.drop_index("decisions_by_request", "decisions")


def _partition() -> None:
    """Put the decision log into a table partitioned by decision_id, whose beginning is the time of the decision.

    All go into the default partition; `maintain` makes those of the months.
    """
    for table, length in (("contacts", 36), ("reservations", 36), ("outcomes", 128)):
        op.execute(f'ALTER TABLE {table} ALTER COLUMN decision_id TYPE varchar({length}) COLLATE "C"')
    op.execute("ALTER TABLE decisions RENAME TO decisions_before")
    op.execute("ALTER TABLE decisions_before RENAME CONSTRAINT decisions_pkey TO decisions_before_pkey")
    op.execute("DROP INDEX decisions_by_request, decisions_by_customer, decisions_by_time")
    op.execute('ALTER TABLE decisions_before ALTER COLUMN decision_id TYPE varchar(36) COLLATE "C"')
    op.execute(
        "CREATE TABLE decisions (LIKE decisions_before INCLUDING COMMENTS INCLUDING DEFAULTS) PARTITION BY RANGE (decision_id)"
    )
    op.execute("ALTER TABLE decisions ADD CONSTRAINT decisions_pkey PRIMARY KEY (decision_id, step)")
    op.execute("CREATE INDEX decisions_by_customer ON decisions (customer_key)")
    op.execute("CREATE INDEX decisions_by_time ON decisions (decide_time)")
    op.execute("CREATE TABLE decisions_default PARTITION OF decisions DEFAULT")
    op.execute("INSERT INTO decisions SELECT * FROM decisions_before")
    op.execute("DROP TABLE decisions_before")
