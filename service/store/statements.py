"""Every statement of the store, written in SQLAlchemy Core; `python -m service.store.statements` compiles them into the SQL of each engine.

What it writes is part of the repository, and a test holds it to what is said here. The server reads that alone (service.store.sql) and speaks
to the driver: SQLAlchemy would cost it memory and time at its start, and to run a Core statement costs several times what the database needs to answer it.
"""

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Dialect,
    Float,
    Select,
    String,
    Table,
    bindparam,
    cast,
    func,
    literal_column,
    null,
    select,
    union_all,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.sql.expression import ClauseElement

from models.correction import ORDERS
from service.store import schema
from service.store.database import ACTIVE, KEYED, PURCHASES
from service.store.sql import write_statements

_d, _o, _c, _s = schema.decisions.c, schema.outcomes.c, schema.contacts.c, schema.statistics.c
_b, _r, _i, _p = schema.budgets.c, schema.reservations.c, schema.identities.c, schema.customers.c
_q, _e, _x, _l = schema.requests.c, schema.exposures.c, schema.experiments.c, schema.leases.c


def _select(table: Table) -> Select[Any]:
    return select(*table.c)


def _texts(values: Iterable[str]) -> list[Any]:
    return [literal_column(f"'{value}'") for value in values]


def _update(table: Table, keys: Iterable[str], values: Iterable[str]) -> ClauseElement:
    clause = table.update().values({name: bindparam(f"new_{name}") for name in values})
    for key in keys:
        clause = clause.where(table.c[key] == bindparam(f"key_{key}"))
    return clause


def _part(kind: str, texts: Iterable[Any] = (), numbers: Iterable[Any] = (), share: Any = None) -> Select[Any]:
    """Return a select of one kind of row in the columns that all parts of a union have: a kind, five texts, five numbers, a float."""
    found = [*texts, *[cast(null(), String)] * 5][:5] + [*numbers, *[cast(null(), BigInteger)] * 5][:5]
    found.append(cast(null(), Float) if share is None else share)
    named = [column.label(f"part_{place}") for place, column in enumerate(found)]
    return select(literal_column(f"'{kind}'").label("kind"), *named)


def _leased(name: str, *conditions: ColumnElement[bool]) -> Any:
    """Return the sum of a column over the leases of a budget's period."""
    total = select(func.coalesce(func.sum(_l[name]), literal_column("0")))
    of_period = total.where(_l.budget == _b.budget, _l.period_start == _b.period_start, *conditions)
    return cast(of_period.scalar_subquery(), BigInteger)


def _sums_of_budget() -> Select[Any]:
    """Return a budget with what its leases change about it, in one statement: money moves between the tables."""
    left = _leased("left_micros")
    return select(
        _b.budget,
        _b.period_start,
        (_b.reserved_micros + _leased("reserved_micros") - left).label("reserved_micros"),
        (_b.committed_micros + _leased("committed_micros")).label("committed_micros"),
        _b.held_price,
        _b.price_time,
        _leased("left_micros", _l.holder != bindparam("holder"), _l.expire_time > bindparam("now")).label(
            "leased_micros"
        ),
    )


def _of_lease(*more: ColumnElement[bool]) -> tuple[ColumnElement[bool], ...]:
    return (_l.budget == bindparam("key_budget"), _l.period_start == bindparam("key_period_start"), *more)


_of_person: ColumnElement[Any] = bindparam("customer_key")
_activity = (
    _part("activity", [_o.decision_id, _o.type, _o.event_id], [_o.step, _o.occur_time])
    .where(
        _o.customer_key == _of_person,
        _o.occur_time > bindparam("activity_after"),
        _o.occur_time <= bindparam("until"),
        _o.type.in_(_texts(ACTIVE)),
        ~_o.machine_generated,
    )
    .order_by(_o.occur_time.desc(), _o.event_id)
    .limit(bindparam("most"))
    .offset(literal_column("0"))
    .subquery()
)
_PARTS = (
    _part("customer", [_p.profile], [_p.create_time, _p.version]).where(_p.customer_key == _of_person),
    _part("contact", [_c.decision_id, _c.channel, _c.topic, _c.category], [_c.step, _c.start_time, _c.end_time]).where(
        _c.customer_key == _of_person,
        _c.start_time > bindparam("contacts_after"),
        _c.is_open == bindparam("is_open"),
    ),
    _part("order", numbers=[_o.occur_time]).where(
        _o.customer_key == _of_person,
        _o.occur_time > bindparam("orders_after"),
        _o.type.in_(_texts(PURCHASES)),
    ),
    select(*_activity.c),
    _part("pause", [schema.pauses.c.channel]),
    _part("exposure", [_e.experiment, _e.variant], share=_e.probability).where(_e.customer_key == _of_person),
    _part("experiment", [_x.experiment, _x.state], share=_x.exposure),
)
_later = schema.budgets.alias()
_sums = (
    _sums_of_budget()
    .where(
        _b.period_start
        == select(func.max(_later.c.period_start))
        .where(_later.c.budget == _b.budget, _later.c.period_start <= bindparam("until"))
        .scalar_subquery()
    )
    .subquery()
)
_changes = schema.budget_changes.c
_BUDGET_PARTS = (
    _part(
        "budget",
        [_sums.c.budget],
        [
            _sums.c.period_start,
            _sums.c.reserved_micros,
            _sums.c.committed_micros,
            _sums.c.price_time,
            _sums.c.leased_micros,
        ],
        _sums.c.held_price,
    ),
    _part(
        "budget_change",
        [_changes.budget],
        [_changes.number, _changes.amount_micros, _changes.file_micros],
    ),
)
"""Every budget in the latest period that has begun, and what operators made of their amounts."""

_READS: dict[str, ClauseElement] = {
    "find_history": union_all(*_PARTS),
    "find_history_and_budgets": union_all(*_PARTS, *_BUDGET_PARTS),
    "find_request": _select(schema.decisions)
    .join(schema.requests, (_q.decision_id == _d.decision_id) & (_q.step == _d.step))
    .where(_q.request_id == bindparam("request_id"), _q.step == bindparam("step")),
    "find_step": _select(schema.decisions).where(
        _d.decision_id == bindparam("decision_id"), _d.step == bindparam("step")
    ),
    "find_owner": select(_d.customer_key).where(
        _d.decision_id == bindparam("decision_id"), _d.step == literal_column("1")
    ),
    "list_steps": _select(schema.decisions).where(_d.decision_id == bindparam("decision_id")).order_by(_d.step),
    "find_outcome": _select(schema.outcomes).where(_o.event_id == bindparam("event_id")),
    "list_outcomes": _select(schema.outcomes)
    .where(_o.decision_id == bindparam("decision_id"))
    .order_by(_o.occur_time, _o.event_id),
    "list_purchases": select(_o.occur_time)
    .where(
        _o.customer_key == bindparam("customer_key"),
        _o.occur_time > bindparam("after"),
        _o.type.in_(_texts(PURCHASES)),
    )
    .order_by(_o.occur_time),
    "list_clicked": select(_o.decision_id, _o.step)
    .where(
        _o.customer_key == bindparam("customer_key"),
        _o.occur_time >= bindparam("since"),
        _o.occur_time < bindparam("until"),
        _o.type == literal_column("'clicked'"),
        _o.status == literal_column("'accepted'"),
        ~_o.machine_generated,
    )
    .distinct()
    .order_by(_o.decision_id, _o.step),
    "list_orders": select(_o.event_id, _o.occur_time)
    .where(
        _o.customer_key == bindparam("customer_key"),
        _o.occur_time >= bindparam("since"),
        _o.occur_time < bindparam("until"),
        _o.type.in_(_texts(ORDERS)),
        _o.status != literal_column("'parked'"),
        ~_o.machine_generated,
    )
    .order_by(_o.occur_time, _o.event_id),
    "list_statistics": select(_s.bundle, _s.stage, _s.channel, _s.kind, _s.step, _s.hour, _s.observed, _s.expected)
    .where(
        _s.bundle == bindparam("bundle"),
        _s.hour >= bindparam("since_hour"),
        _s.hour <= bindparam("until_hour"),
    )
    .order_by(_s.hour, _s.stage, _s.channel, _s.kind, _s.step),
    "find_contact": _select(schema.contacts).where(
        _c.decision_id == bindparam("decision_id"), _c.step == bindparam("step")
    ),
    "find_identity": select(_i.customer_key).where(_i.identity_hash == bindparam("identity_hash")),
    "count_identities": select(func.count())
    .select_from(schema.identities)
    .where(_i.customer_key == bindparam("customer_key")),
    "count_all_identities": select(func.count()).select_from(schema.identities),
    "find_customer": select(_p.profile, _p.create_time, _p.version).where(_p.customer_key == bindparam("customer_key")),
    "list_pauses": _select(schema.pauses).order_by(schema.pauses.c.channel),
    "find_budget": _sums_of_budget()
    .where(_b.budget == bindparam("budget"), _b.period_start <= bindparam("period_start"))
    .order_by(_b.period_start.desc())
    .limit(literal_column("1"))
    .offset(literal_column("0")),
    "list_budget_changes": _select(schema.budget_changes).order_by(
        schema.budget_changes.c.budget, schema.budget_changes.c.number
    ),
    "find_lease": select(_l.left_micros).where(
        *_of_lease(_l.holder == bindparam("key_holder"), _l.expire_time > bindparam("now"))
    ),
    "sum_stopped_leases": select(
        cast(func.sum(_l.left_micros), BigInteger),
        cast(func.sum(_l.reserved_micros), BigInteger),
        cast(func.sum(_l.committed_micros), BigInteger),
    ).where(*_of_lease(_l.expire_time == literal_column("0"))),
    "list_expired_leases": select(_l.budget, _l.period_start)
    .distinct()
    .where(_l.expire_time <= bindparam("now"))
    .order_by(_l.budget, _l.period_start),
    "list_reservations": _select(schema.reservations)
    .where(_r.decision_id == bindparam("decision_id"), _r.step == bindparam("step"))
    .order_by(_r.budget),
    "list_expired": _select(schema.reservations)
    .where(_r.reserved_micros > literal_column("0"), _r.expire_time <= bindparam("now"))
    .order_by(_r.expire_time, _r.decision_id, _r.step, _r.budget),
    "list_exposures": _select(schema.exposures)
    .where(_e.customer_key == bindparam("customer_key"))
    .order_by(_e.experiment),
    "count_exposures": select(_e.experiment, _e.variant, func.count())
    .where(~_e.is_mixed)
    .group_by(_e.experiment, _e.variant)
    .order_by(_e.experiment, _e.variant),
    "count_mixed": select(_e.experiment, func.count()).where(_e.is_mixed).group_by(_e.experiment),
    "list_experiments": _select(schema.experiments).order_by(_x.experiment),
    "list_experiment_changes": _select(schema.experiment_changes)
    .where(schema.experiment_changes.c.experiment == bindparam("experiment"))
    .order_by(schema.experiment_changes.c.number),
    "find_fact": select(schema.facts.c.value).where(schema.facts.c.name == bindparam("name")),
}

_WRITES: dict[str, ClauseElement] = {
    "insert_decision": schema.decisions.insert(),
    "insert_outcome": schema.outcomes.insert(),
    "insert_contact": schema.contacts.insert(),
    "insert_reservation": schema.reservations.insert(),
    "insert_pause": schema.pauses.insert(),
    "insert_budget_change": schema.budget_changes.insert(),
    "insert_exposure": schema.exposures.insert(),
    "delete_exposures": schema.exposures.delete().where(_e.customer_key == bindparam("customer_key")),
    "move_exposures": _update(schema.exposures, ["customer_key"], ["customer_key"]),
    "insert_experiment": schema.experiments.insert(),
    "delete_experiment": schema.experiments.delete().where(_x.experiment == bindparam("experiment")),
    "insert_experiment_change": schema.experiment_changes.insert(),
    "delete_statistics": schema.statistics.delete().where(_s.hour < bindparam("before_hour")),
    "delete_pause": schema.pauses.delete().where(schema.pauses.c.channel == bindparam("channel")),
    "delete_customer": schema.customers.delete().where(_p.customer_key == bindparam("customer_key")),
    "claim_customer": schema.customers.update()
    .values(version=_p.version + literal_column("1"))
    .where(_p.customer_key == bindparam("key_customer_key"), _p.version == bindparam("key_version")),
    "touch_customer": schema.customers.update()
    .values(version=_p.version + literal_column("1"))
    .where(_p.customer_key == bindparam("key_customer_key")),
    "update_reservation": _update(
        schema.reservations,
        ["decision_id", "step", "budget", "reserved_micros", "committed_micros"],
        ["reserved_micros", "committed_micros"],
    ),
    "insert_lease": schema.leases.insert(),
    "take_lease": schema.leases.update()
    .values(left_micros=_l.left_micros - bindparam("taken_micros"))
    .where(
        *_of_lease(
            _l.holder == bindparam("key_holder"),
            _l.left_micros >= bindparam("need_micros"),
            _l.expire_time > bindparam("now"),
        )
    ),
    "stop_leases": schema.leases.update()
    .values(expire_time=literal_column("0"))
    .where(*_of_lease((_l.holder == bindparam("key_holder")) | (_l.expire_time <= bindparam("now")))),
    "delete_stopped_leases": schema.leases.delete().where(*_of_lease(_l.expire_time == literal_column("0"))),
    "update_profile": _update(schema.customers, ["customer_key"], ["profile", "update_time"]),
    "update_trainable": _update(schema.decisions, ["decision_id", "step"], ["trainable"]),
    "update_contact": _update(schema.contacts, ["decision_id", "step"], ["start_time", "end_time", "is_open"]),
    "update_fact": _update(schema.facts, ["name"], ["value"]),
    "update_outcome": _update(schema.outcomes, ["event_id"], ["status", "step", "customer_key"]),
    "erase_requests": schema.requests.delete().where(
        _q.decision_id.in_(select(_d.decision_id).where(_d.customer_key == bindparam("customer_key")))
    ),
    "erase_decisions": schema.decisions.update()
    .values(
        customer_key=bindparam("new_customer_key"),
        request_id=literal_column("''"),
        request_digest=bindparam("nothing"),
        trainable=bindparam("is_trainable"),
        features=literal_column("''"),
        context=literal_column("''"),
        choice=literal_column("''"),
        actions=null(),
    )
    .where(_d.customer_key == bindparam("key_customer_key")),
    "erase_outcomes": schema.outcomes.update()
    .values(customer_key=bindparam("new_customer_key"), digest=bindparam("nothing"), csat=null(), nps=null())
    .where(_o.customer_key == bindparam("key_customer_key")),
    "delete_contacts": schema.contacts.delete().where(_c.customer_key == bindparam("customer_key")),
    "delete_identities": schema.identities.delete().where(_i.customer_key == bindparam("customer_key")),
    **{f"move_{name}": _update(schema.metadata.tables[name], ["customer_key"], ["customer_key"]) for name in KEYED},
}


def _unless_there(table: Table, insert: Callable[[Table], Any]) -> ClauseElement:
    """Return a statement that inserts a row, or does nothing where one of its keys is taken."""
    found: ClauseElement = insert(table).on_conflict_do_nothing()
    return found


def _add(
    table: Table, insert: Callable[[Table], Any], sums: Iterable[str], latest: Iterable[str] = ()
) -> ClauseElement:
    """Return a statement that inserts a row; where it is there, adds these columns to it and overwrites those."""
    clause = insert(table)
    changes = {name: table.c[name] + clause.excluded[name] for name in sums}
    changes |= {name: clause.excluded[name] for name in latest}
    found: ClauseElement = clause.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=changes)
    return found


def compile_statements(engine: str) -> dict[str, str]:
    """Return the SQL of every statement by name, for sqlite or postgresql."""
    if engine == "sqlite":
        return _compile(sqlite.dialect(paramstyle="named"), sqlite.insert)
    return _compile(psycopg.dialect(), postgresql.insert)  # type: ignore[no-untyped-call]  # SQLAlchemy's own


def _compile(dialect: Dialect, insert: Callable[[Table], Any]) -> dict[str, str]:
    """Compile all statements; `insert` is the dialect's own, which knows conflicts."""
    upserts = {
        "insert_request": _unless_there(schema.requests, insert),
        "insert_customer": _unless_there(schema.customers, insert),
        "insert_identity": _unless_there(schema.identities, insert),
        "insert_fact": _unless_there(schema.facts, insert),
        "add_statistics": _add(schema.statistics, insert, ["observed", "expected"]),
        "add_budget": _add(
            schema.budgets, insert, ["reserved_micros", "committed_micros"], ["held_price", "price_time"]
        ),
        "add_lease": _add(schema.leases, insert, ["reserved_micros", "committed_micros"]),
    }
    clauses = _READS | _WRITES | upserts
    return {name: _tidy(str(clause.compile(dialect=dialect))) for name, clause in clauses.items()}


def _tidy(sql: str) -> str:
    """Take the spaces off the ends of lines, which SQLAlchemy leaves there."""
    return "\n".join(line.rstrip() for line in sql.strip().splitlines())


if __name__ == "__main__":
    for name in ("sqlite", "postgresql"):
        write_statements(name, compile_statements(name))
