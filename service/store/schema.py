"""Tables of the store. Times are microseconds since 1970 in UTC, money is micros of the rules' currency.

No table holds an identity or a customer's own id: they are kept as keyed hashes (see `identities`).
"""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()
_DECISION_ID = String(36).with_variant(String(36, collation="C"), "postgresql")
_ANY_DECISION_ID = String(128).with_variant(String(128, collation="C"), "postgresql")
"""UUIDs of version 7 begin with their time, so that by their bytes they are in order of time: the decision log is partitioned by them."""

decisions = Table(
    "decisions",
    metadata,
    Column("decision_id", _DECISION_ID, primary_key=True, comment="UUID; one for all steps of a cascade"),
    Column("step", Integer, primary_key=True, comment="step of the cascade, from 1"),
    Column("request_id", String(128), nullable=False, comment="the caller's idempotency key"),
    Column("request_digest", LargeBinary, nullable=False, comment="HMAC-SHA256 of the request's body"),
    Column("customer_key", String(32), nullable=False, comment="the person, across identities"),
    Column("decide_time", BigInteger, nullable=False, comment="when it was decided"),
    Column("campaign", String(128), nullable=False),
    Column("mode", String(16), nullable=False, comment="live or shadow"),
    Column("verdict", String(16), nullable=False, comment="send, defer, do_not_send or holdout"),
    Column("channel", String(32), nullable=False, comment="channel of the served action; none for no send"),
    Column("send_time", BigInteger, nullable=True, comment="when to send; null for no send"),
    Column("propensity", Float, nullable=False, comment="P(served action | context, eligible actions)"),
    Column("price_micros", BigInteger, nullable=False, comment="price of the served action"),
    Column("order_margin_micros", BigInteger, nullable=False, comment="margin of an order, from the message"),
    Column("policy", String(64), nullable=False),
    Column("bundle_version", String(128), nullable=False, comment="empty where no bundle served"),
    Column("rules_name", String(80), nullable=False, comment="version and digest of the rules file"),
    Column("trainable", Boolean, nullable=False, comment="whether training may learn from it"),
    Column("features", Text, nullable=False, comment="JSON: features of the served action as used, by name"),
    Column("context", Text, nullable=False, comment="JSON: everything the decision was made from"),
    Column("choice", Text, nullable=False, comment="JSON: verdict, suppressed channels, cascade, versions"),
    Column(
        "actions", LargeBinary, nullable=True, comment="distribution over eligible actions, models.record.ACTION_ROW"
    ),
    Index("decisions_by_time", "decide_time"),
    Index("decisions_by_customer", "customer_key"),
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", String(128), primary_key=True, comment="the caller's idempotency key"),
    Column("step", Integer, primary_key=True),
    Column("decision_id", _DECISION_ID, nullable=False),
    comment="which decision a request made: unique over all partitions of the decision log",
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("event_id", String(128), primary_key=True, comment="the caller's idempotency key"),
    Column("digest", LargeBinary, nullable=False, comment="HMAC-SHA256 of the outcome's body"),
    Column("decision_id", _ANY_DECISION_ID, nullable=False, comment="empty for what no decision led to"),
    Column("step", Integer, nullable=False, comment="step it follows; 0 where no decision is known"),
    Column("customer_key", String(32), nullable=False, comment="empty while the decision is not known"),
    Column("type", String(16), nullable=False, comment="lower-case OutcomeType"),
    Column("occur_time", BigInteger, nullable=False),
    Column("receive_time", BigInteger, nullable=False),
    Column("status", String(16), nullable=False, comment="accepted, late or parked"),
    Column("value_micros", BigInteger, nullable=True, comment="margin of an order; null: the message's"),
    Column("cost_micros", BigInteger, nullable=True, comment="what a send really cost"),
    Column("machine_generated", Boolean, nullable=False),
    Column("csat", Integer, nullable=True),
    Column("nps", Integer, nullable=True),
    Column("revenue_micros", BigInteger, nullable=True, comment="what was paid for an order, or given back"),
    Index("outcomes_by_decision", "decision_id", "step"),
    Index("outcomes_by_customer", "customer_key", "occur_time"),
)

customers = Table(
    "customers",
    metadata,
    Column("customer_key", String(32), primary_key=True),
    Column("profile", Text, nullable=False, comment="JSON: zone, locale, country, features, consents, reachability"),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column(
        "version",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="goes up with all that a decision about the person may depend on",
    ),
)

identities = Table(
    "identities",
    metadata,
    Column("identity_hash", LargeBinary, primary_key=True, comment="HMAC-SHA256 of type and value"),
    Column("customer_key", String(32), nullable=False),
    Index("identities_by_customer", "customer_key"),
)

contacts = Table(
    "contacts",
    metadata,
    Column("decision_id", _DECISION_ID, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("customer_key", String(32), nullable=False),
    Column("channel", String(32), nullable=False),
    Column("topic", String(128), nullable=False),
    Column("category", String(16), nullable=False),
    Column("start_time", BigInteger, nullable=False, comment="earliest time of the send; after SENT, its time"),
    Column("end_time", BigInteger, nullable=False, comment="latest time of the send; after SENT, its time"),
    Column("is_open", Boolean, nullable=False, comment="false once NOT_SENT or UNDELIVERED: it no longer counts"),
    Index("contacts_by_customer", "customer_key", "start_time"),
)

statistics = Table(
    "statistics",
    metadata,
    Column("bundle", String(128), primary_key=True),
    Column("hour", Integer, primary_key=True, comment="since 1970, at whose begin the trials were over"),
    Column("stage", String(16), primary_key=True),
    Column("channel", String(32), primary_key=True),
    Column("kind", String(64), primary_key=True, comment="kind of message"),
    Column("step", Integer, primary_key=True, comment="1, or 2 for all later ones"),
    Column("observed", BigInteger, nullable=False, comment="in millionths"),
    Column("expected", BigInteger, nullable=False, comment="in millionths"),
)

budgets = Table(
    "budgets",
    metadata,
    Column("budget", String(64), primary_key=True, comment="name in the rules file"),
    Column("period_start", BigInteger, primary_key=True),
    Column("reserved_micros", BigInteger, nullable=False, comment="set aside for sends whose outcome is open"),
    Column("committed_micros", BigInteger, nullable=False, comment="spent"),
    Column("held_price", Float, nullable=False, comment="shadow price that the charged one is made from"),
    Column("price_time", BigInteger, nullable=False, comment="when held_price was brought up to date"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("decision_id", _DECISION_ID, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("budget", String(64), primary_key=True),
    Column("period_start", BigInteger, nullable=False, comment="of the period that pays, that of the decision"),
    Column("price_micros", BigInteger, nullable=False, comment="what was set aside"),
    Column("reserved_micros", BigInteger, nullable=False, comment="still set aside; 0 once settled"),
    Column("committed_micros", BigInteger, nullable=False, comment="what it cost; 0 while open and when released"),
    Column(
        "expire_time",
        BigInteger,
        nullable=False,
        comment="from then on it counts as sent until an outcome says otherwise",
    ),
    Index("reservations_by_expiry", "reserved_micros", "expire_time"),
)

leases = Table(
    "leases",
    metadata,
    Column("budget", String(64), primary_key=True, comment="name in the rules file"),
    Column("period_start", BigInteger, primary_key=True),
    Column("holder", String(32), primary_key=True, comment="of one process, new at each start"),
    Column(
        "left_micros",
        BigInteger,
        nullable=False,
        comment="reserved in budgets, and not yet for any send; the holder alone may reserve it",
    ),
    Column(
        "reserved_micros",
        BigInteger,
        nullable=False,
        comment="to be added to budgets, for reservations that the holder settled",
    ),
    Column("committed_micros", BigInteger, nullable=False, comment="to be added to budgets, likewise"),
    Column("expire_time", BigInteger, nullable=False, comment="from then on anybody may take it back"),
)

budget_changes = Table(
    "budget_changes",
    metadata,
    Column("budget", String(64), primary_key=True, comment="name in the rules file"),
    Column("number", Integer, primary_key=True, comment="of the budget's changes, from 1; the latest holds"),
    Column("change_time", BigInteger, nullable=False),
    Column("amount_micros", BigInteger, nullable=True, comment="null: what the rules file says again"),
    Column(
        "file_micros",
        BigInteger,
        nullable=False,
        comment="what the rules file said then; with another amount there, the file holds",
    ),
    Column("reason", String(512), nullable=False),
    comment="what operators changed, in order",
)

pauses = Table(
    "pauses",
    metadata,
    Column("channel", String(32), primary_key=True),
    Column("pause_time", BigInteger, nullable=False),
    Column("reason", String(512), nullable=False),
)

exposures = Table(
    "exposures",
    metadata,
    Column("experiment", String(64), primary_key=True, comment="name in the rules file"),
    Column("customer_key", String(32), primary_key=True, comment="the person, across identities"),
    Column("variant", String(64), nullable=False),
    Column("probability", Float, nullable=False, comment="P(variant | exposed), at the exposure"),
    Column("expose_time", BigInteger, nullable=False, comment="of the first decision that was part of it"),
    Column("decision_id", _DECISION_ID, nullable=False, comment="that decision"),
    Column("rules_name", String(80), nullable=False, comment="version and digest of the rules file"),
    Column("is_mixed", Boolean, nullable=False, comment="whether two profiles of different variants became one"),
    Index("exposures_by_customer", "customer_key"),
)

experiments = Table(
    "experiments",
    metadata,
    Column("experiment", String(64), primary_key=True, comment="name in the rules file"),
    Column("state", String(16), nullable=False, comment="running, paused or stopped"),
    Column("exposure", Float, nullable=True, comment="share exposed; null: as the rules file says"),
    comment="how experiments are run at present, where that is not as the rules file says",
)

experiment_changes = Table(
    "experiment_changes",
    metadata,
    Column("experiment", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, comment="of the experiment's changes, from 1"),
    Column("change_time", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("exposure", Float, nullable=True),
    Column("reason", String(512), nullable=False),
    comment="what operators changed, in order",
)

facts = Table(
    "facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
    comment="what is true of the database as a whole",
)
