"""The store: reads by any thread, writes as units of work that share commits.

Statements are written in SQLAlchemy Core and compiled once into the dialect's SQL; the hot path then speaks to the driver, since
building and running a Core statement costs several times what SQLite needs to answer it.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

from sqlalchemy import Select, Table, bindparam, func, literal_column, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.expression import ClauseElement

from models.correction import ORDERS, Cell, Sums
from models.errors import StoreUnavailable
from service.store import schema
from service.store.engine import open_engine
from service.store.profile import Profile, profile_from_json, profile_to_json
from service.store.writer import GroupWriter

T = TypeVar("T")
_DIALECT = sqlite.dialect(paramstyle="named")
PURCHASES = ("order", "store_purchase")
ENGAGED = ("seen", "opened", "clicked")
ACTIVE = ("visit", *ENGAGED, *PURCHASES)


def _sql(clause: ClauseElement) -> str:
    return str(clause.compile(dialect=_DIALECT))


def _insert(table: Table) -> str:
    return _sql(table.insert())


def _update(table: Table, keys: Iterable[str], values: Iterable[str]) -> str:
    clause = table.update().values({name: bindparam(f"new_{name}") for name in values})
    for key in keys:
        clause = clause.where(table.c[key] == bindparam(f"key_{key}"))
    return _sql(clause)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """One row of the decision log; the columns are those of schema.decisions."""

    decision_id: str
    step: int
    request_id: str
    request_digest: bytes
    customer_key: str
    decide_time: int
    campaign: str
    mode: str
    verdict: str
    channel: str
    send_time: int | None
    propensity: float
    price_micros: int
    order_margin_micros: int
    policy: str
    bundle_version: str
    rules_name: str
    trainable: bool
    features: str
    context: str
    choice: str
    actions: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """One stored outcome; the columns are those of schema.outcomes."""

    event_id: str
    digest: bytes
    decision_id: str
    step: int
    customer_key: str
    type: str
    occur_time: int
    receive_time: int
    status: str
    value_micros: int | None
    cost_micros: int | None
    machine_generated: bool
    csat: int | None
    nps: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactRow:
    """One contact; the columns are those of schema.contacts."""

    decision_id: str
    step: int
    customer_key: str
    channel: str
    topic: str
    category: str
    start_time: int
    end_time: int
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRow:
    """One paused channel; the columns are those of schema.pauses."""

    channel: str
    pause_time: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRow:
    """A budget in one period; the columns are those of schema.budgets."""

    budget: str
    period_start: int
    reserved_micros: int
    committed_micros: int
    held_price: float
    price_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationRow:
    """What one send takes of one budget; the columns are those of schema.reservations."""

    decision_id: str
    step: int
    budget: str
    period_start: int
    price_micros: int
    reserved_micros: int
    committed_micros: int
    expire_time: int


def _names(row: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(row))


def _select(table: Table, row: type) -> Select[Any]:
    return select(*(table.c[name] for name in _names(row)))


def _values(row: object) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _names(type(row))}


def _add_to(table: Table, keys: Iterable[str], sums: Iterable[str]) -> str:
    """Return a statement that inserts a row, or adds to the one that is there."""
    clause = sqlite.insert(table)
    return _sql(
        clause.on_conflict_do_update(
            index_elements=list(keys), set_={name: table.c[name] + clause.excluded[name] for name in sums}
        )
    )


_d, _o, _c, _s = schema.decisions.c, schema.outcomes.c, schema.contacts.c, schema.statistics.c
_b, _r = schema.budgets.c, schema.reservations.c
_reservation = _select(schema.reservations, ReservationRow)
_decision = _select(schema.decisions, DecisionRow)
_outcome = _select(schema.outcomes, OutcomeRow)
_SQL = {
    "find_request": _sql(_decision.where(_d.request_id == bindparam("request_id"), _d.step == bindparam("step"))),
    "find_step": _sql(_decision.where(_d.decision_id == bindparam("decision_id"), _d.step == bindparam("step"))),
    "list_steps": _sql(_decision.where(_d.decision_id == bindparam("decision_id")).order_by(_d.step)),
    "find_outcome": _sql(_outcome.where(_o.event_id == bindparam("event_id"))),
    "list_outcomes": _sql(
        _outcome.where(_o.decision_id == bindparam("decision_id")).order_by(_o.occur_time, _o.event_id)
    ),
    "list_purchases": _sql(
        select(_o.occur_time)
        .where(
            _o.customer_key == bindparam("customer_key"),
            _o.occur_time > bindparam("after"),
            _o.type.in_([literal_column(f"'{kind}'") for kind in PURCHASES]),
        )
        .order_by(_o.occur_time)
    ),
    "list_activity": _sql(
        select(_o.type, _o.occur_time, _o.decision_id, _o.step)
        .where(
            _o.customer_key == bindparam("customer_key"),
            _o.occur_time > bindparam("after"),
            _o.occur_time <= bindparam("until"),
            _o.type.in_([literal_column(f"'{kind}'") for kind in ACTIVE]),
            ~_o.machine_generated,
        )
        .order_by(_o.occur_time.desc())
        .limit(bindparam("most"))
        .offset(literal_column("0"))
    ),
    "list_clicked": _sql(
        select(_o.decision_id, _o.step)
        .where(
            _o.customer_key == bindparam("customer_key"),
            _o.occur_time >= bindparam("since"),
            _o.occur_time < bindparam("until"),
            _o.type == literal_column("'clicked'"),
            _o.status == literal_column("'accepted'"),
            ~_o.machine_generated,
        )
        .distinct()
        .order_by(_o.decision_id, _o.step)
    ),
    "list_orders": _sql(
        select(_o.event_id, _o.occur_time)
        .where(
            _o.customer_key == bindparam("customer_key"),
            _o.occur_time >= bindparam("since"),
            _o.occur_time < bindparam("until"),
            _o.type.in_([literal_column(f"'{kind}'") for kind in ORDERS]),
            _o.status != literal_column("'parked'"),
            ~_o.machine_generated,
        )
        .order_by(_o.occur_time, _o.event_id)
    ),
    "list_statistics": _sql(
        select(_s.bundle, _s.stage, _s.channel, _s.kind, _s.step, _s.hour, _s.observed, _s.expected)
        .where(
            _s.bundle == bindparam("bundle"),
            _s.hour >= bindparam("since_hour"),
            _s.hour <= bindparam("until_hour"),
        )
        .order_by(_s.hour, _s.stage, _s.channel, _s.kind, _s.step)
    ),
    "list_contacts": _sql(
        _select(schema.contacts, ContactRow)
        .where(
            _c.customer_key == bindparam("customer_key"),
            _c.start_time > bindparam("after"),
            _c.is_open == bindparam("is_open"),
        )
        .order_by(_c.start_time)
    ),
    "find_contact": _sql(
        _select(schema.contacts, ContactRow).where(
            _c.decision_id == bindparam("decision_id"), _c.step == bindparam("step")
        )
    ),
    "find_identity": _sql(
        select(schema.identities.c.customer_key).where(schema.identities.c.identity_hash == bindparam("identity_hash"))
    ),
    "count_identities": _sql(
        select(func.count())
        .select_from(schema.identities)
        .where(schema.identities.c.customer_key == bindparam("customer_key"))
    ),
    "count_all_identities": _sql(select(func.count()).select_from(schema.identities)),
    "find_customer": _sql(
        select(schema.customers.c.profile, schema.customers.c.create_time).where(
            schema.customers.c.customer_key == bindparam("customer_key")
        )
    ),
    "list_pauses": _sql(_select(schema.pauses, PauseRow).order_by(schema.pauses.c.channel)),
    "find_budget": _sql(
        _select(schema.budgets, BudgetRow)
        .where(_b.budget == bindparam("budget"), _b.period_start <= bindparam("period_start"))
        .order_by(_b.period_start.desc())
        .limit(literal_column("1"))
        .offset(literal_column("0"))
    ),
    "list_reservations": _sql(
        _reservation.where(_r.decision_id == bindparam("decision_id"), _r.step == bindparam("step")).order_by(_r.budget)
    ),
    "list_expired": _sql(
        _reservation.where(_r.reserved_micros > literal_column("0"), _r.expire_time <= bindparam("now")).order_by(
            _r.expire_time, _r.decision_id
        )
    ),
    "insert_budget": _insert(schema.budgets),
    "insert_reservation": _insert(schema.reservations),
    "update_budget": _update(
        schema.budgets,
        ["budget", "period_start"],
        ["reserved_micros", "committed_micros", "held_price", "price_time"],
    ),
    "update_reservation": _update(
        schema.reservations, ["decision_id", "step", "budget"], ["reserved_micros", "committed_micros"]
    ),
    "insert_decision": _insert(schema.decisions),
    "insert_outcome": _insert(schema.outcomes),
    "insert_contact": _insert(schema.contacts),
    "insert_identity": _insert(schema.identities),
    "insert_customer": _insert(schema.customers),
    "insert_pause": _insert(schema.pauses),
    "add_statistics": _add_to(
        schema.statistics, ["bundle", "hour", "stage", "channel", "kind", "step"], ["observed", "expected"]
    ),
    "delete_statistics": _sql(schema.statistics.delete().where(_s.hour < bindparam("before_hour"))),
    "delete_pause": _sql(schema.pauses.delete().where(schema.pauses.c.channel == bindparam("channel"))),
    "delete_customer": _sql(
        schema.customers.delete().where(schema.customers.c.customer_key == bindparam("customer_key"))
    ),
    "update_profile": _update(schema.customers, ["customer_key"], ["profile", "update_time"]),
    "update_trainable": _update(schema.decisions, ["decision_id", "step"], ["trainable"]),
    "update_contact": _update(schema.contacts, ["decision_id", "step"], ["start_time", "end_time", "is_open"]),
    "update_outcome": _update(schema.outcomes, ["event_id"], ["status", "step", "customer_key"]),
    **{
        f"move_{table.name}": _update(table, ["customer_key"], ["customer_key"])
        for table in (schema.decisions, schema.outcomes, schema.contacts, schema.identities)
    },
}
_KEYED = (schema.decisions, schema.outcomes, schema.contacts, schema.identities)


class Reader:
    """Reads through one cursor."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def _rows(self, name: str, /, **values: Any) -> list[Any]:
        return self._cursor.execute(_SQL[name], values).fetchall()

    def _row(self, name: str, /, **values: Any) -> Any:
        return self._cursor.execute(_SQL[name], values).fetchone()

    def find_request(self, request_id: str, step: int = 1) -> DecisionRow | None:
        return _decision_row(self._row("find_request", request_id=request_id, step=step))

    def find_step(self, decision_id: str, step: int) -> DecisionRow | None:
        return _decision_row(self._row("find_step", decision_id=decision_id, step=step))

    def list_steps(self, decision_id: str) -> list[DecisionRow]:
        return [cast(DecisionRow, _decision_row(row)) for row in self._rows("list_steps", decision_id=decision_id)]

    def find_outcome(self, event_id: str) -> OutcomeRow | None:
        row = self._row("find_outcome", event_id=event_id)
        return None if row is None else _outcome_row(row)

    def list_outcomes(self, decision_id: str) -> list[OutcomeRow]:
        return [_outcome_row(row) for row in self._rows("list_outcomes", decision_id=decision_id)]

    def list_purchases(self, customer_key: str, after: int) -> list[int]:
        """Return the times of a customer's orders and purchases after a time, in order."""
        return [row[0] for row in self._rows("list_purchases", customer_key=customer_key, after=after)]

    def list_activity(self, customer_key: str, after: int, until: int, most: int) -> list[tuple[str, int, str, int]]:
        """Return (type, time, decision, step) of the latest things that a customer did within (after, until], the newest first."""
        return self._rows("list_activity", customer_key=customer_key, after=after, until=until, most=most)

    def list_clicked(self, customer_key: str, since: int, until: int) -> list[tuple[str, int]]:
        """Return (decision, step) of the sends that a customer clicked within [since, until), each once."""
        return self._rows("list_clicked", customer_key=customer_key, since=since, until=until)

    def list_orders(self, customer_key: str, since: int, until: int) -> list[tuple[str, int]]:
        """Return (event, time) of a customer's orders and purchases within [since, until); not those whose decision is not known."""
        return self._rows("list_orders", customer_key=customer_key, since=since, until=until)

    def list_statistics(self, bundle: str, since_hour: int, until_hour: int) -> list[tuple[Cell, Sums]]:
        """Return the sums of a bundle's trials that were over in these hours, both included, in order."""
        rows = self._rows("list_statistics", bundle=bundle, since_hour=since_hour, until_hour=until_hour)
        return [(Cell(*row[:6]), Sums(*row[6:])) for row in rows]

    def list_contacts(self, customer_key: str, after: int) -> list[ContactRow]:
        """Return a customer's contacts that count and start after a time, in order."""
        rows = self._rows("list_contacts", customer_key=customer_key, after=after, is_open=True)
        return [_contact_row(row) for row in rows]

    def find_contact(self, decision_id: str, step: int) -> ContactRow | None:
        row = self._row("find_contact", decision_id=decision_id, step=step)
        return None if row is None else _contact_row(row)

    def find_identities(self, hashes: Iterable[bytes]) -> dict[bytes, str]:
        """Return the customer key of each identity that is known."""
        found: dict[bytes, str] = {}
        for identity_hash in hashes:
            row = self._row("find_identity", identity_hash=identity_hash)
            if row is not None:
                found[identity_hash] = row[0]
        return found

    def count_identities(self, customer_key: str) -> int:
        return int(self._row("count_identities", customer_key=customer_key)[0])

    def count_all_identities(self) -> int:
        return int(self._row("count_all_identities")[0])

    def find_profile(self, customer_key: str) -> Profile | None:
        row = self._row("find_customer", customer_key=customer_key)
        return None if row is None else profile_from_json(row[0])

    def find_create_time(self, customer_key: str) -> int | None:
        row = self._row("find_customer", customer_key=customer_key)
        return None if row is None else int(row[1])

    def list_pauses(self) -> list[PauseRow]:
        return [PauseRow(channel=row[0], pause_time=row[1], reason=row[2]) for row in self._rows("list_pauses")]

    def find_budget(self, budget: str, period_start: int) -> BudgetRow | None:
        """Return a budget in the latest of its periods that began by then; None where it has none yet."""
        row = self._row("find_budget", budget=budget, period_start=period_start)
        return None if row is None else BudgetRow(**dict(zip(_names(BudgetRow), row, strict=True)))

    def list_reservations(self, decision_id: str, step: int) -> list[ReservationRow]:
        rows = self._rows("list_reservations", decision_id=decision_id, step=step)
        return [ReservationRow(**dict(zip(_names(ReservationRow), row, strict=True))) for row in rows]

    def list_expired(self, now: int) -> list[ReservationRow]:
        """Return open reservations that expired by then, the oldest first."""
        rows = self._rows("list_expired", now=now)
        return [ReservationRow(**dict(zip(_names(ReservationRow), row, strict=True))) for row in rows]


class Unit(Reader):
    """A unit of work: reads see its own writes; all of it is kept or nothing."""

    def _run(self, name: str, values: Mapping[str, Any]) -> int:
        return self._cursor.execute(_SQL[name], values).rowcount

    def insert_decision(self, row: DecisionRow) -> bool:
        """Insert a decision; False where its request_id or its step is taken."""
        try:
            self._run("insert_decision", _values(row))
        except sqlite3.IntegrityError:
            return False
        return True

    def insert_outcome(self, row: OutcomeRow) -> None:
        self._run("insert_outcome", _values(row))

    def add_statistics(self, sums: Iterable[tuple[Cell, Sums]]) -> None:
        """Add to sums; those that are not there yet begin with 0."""
        self._cursor.executemany(_SQL["add_statistics"], [_values(cell) | _values(added) for cell, added in sums])

    def delete_statistics(self, before_hour: int) -> None:
        """Delete the sums of hours before this one, of all bundles."""
        self._run("delete_statistics", {"before_hour": before_hour})

    def insert_contact(self, row: ContactRow) -> None:
        self._run("insert_contact", _values(row))

    def put_budget(self, row: BudgetRow) -> None:
        """Write a budget's period, whether it is there or not."""
        values = _values(row)
        keys = {f"key_{name}": values[name] for name in ("budget", "period_start")}
        changes = {f"new_{name}": value for name, value in values.items() if f"key_{name}" not in keys}
        if self._run("update_budget", keys | changes) == 0:
            self._run("insert_budget", values)

    def insert_reservation(self, row: ReservationRow) -> None:
        self._run("insert_reservation", _values(row))

    def update_reservation(self, row: ReservationRow) -> None:
        self._run(
            "update_reservation",
            {
                "key_decision_id": row.decision_id,
                "key_step": row.step,
                "key_budget": row.budget,
                "new_reserved_micros": row.reserved_micros,
                "new_committed_micros": row.committed_micros,
            },
        )

    def insert_customer(self, customer_key: str, profile: Profile, moment: int) -> None:
        text = profile_to_json(profile)
        self._run(
            "insert_customer",
            {"customer_key": customer_key, "profile": text, "create_time": moment, "update_time": moment},
        )

    def insert_identities(self, customer_key: str, hashes: Iterable[bytes]) -> None:
        for identity_hash in hashes:
            self._run("insert_identity", {"identity_hash": identity_hash, "customer_key": customer_key})

    def update_profile(self, customer_key: str, profile: Profile, moment: int) -> None:
        self._run(
            "update_profile",
            {"key_customer_key": customer_key, "new_profile": profile_to_json(profile), "new_update_time": moment},
        )

    def update_trainable(self, decision_id: str, step: int, trainable: bool) -> None:
        self._run("update_trainable", {"key_decision_id": decision_id, "key_step": step, "new_trainable": trainable})

    def update_contact(self, row: ContactRow) -> None:
        self._run(
            "update_contact",
            {
                "key_decision_id": row.decision_id,
                "key_step": row.step,
                "new_start_time": row.start_time,
                "new_end_time": row.end_time,
                "new_is_open": row.is_open,
            },
        )

    def update_outcome(self, event_id: str, status: str, step: int, customer_key: str) -> None:
        self._run(
            "update_outcome",
            {"key_event_id": event_id, "new_status": status, "new_step": step, "new_customer_key": customer_key},
        )

    def merge_customers(self, winner: str, losers: Sequence[str], moment: int) -> None:
        """Give everything of some customers to one, whose own profile goes over theirs."""
        profile = self.find_profile(winner) or Profile()
        for loser in losers:
            profile = (self.find_profile(loser) or Profile()).updated(profile)
            for table in _KEYED:
                self._run(f"move_{table.name}", {"key_customer_key": loser, "new_customer_key": winner})
            self._run("delete_customer", {"customer_key": loser})
        self.update_profile(winner, profile, moment)

    def insert_pause(self, row: PauseRow) -> None:
        self._run("delete_pause", {"channel": row.channel})
        self._run("insert_pause", _values(row))

    def delete_pause(self, channel: str) -> bool:
        return self._run("delete_pause", {"channel": channel}) > 0


def _decision_row(row: Any) -> DecisionRow | None:
    if row is None:
        return None
    values = dict(zip(_names(DecisionRow), row, strict=True))
    values["trainable"] = bool(values["trainable"])
    return DecisionRow(**values)


def _contact_row(row: Any) -> ContactRow:
    values = dict(zip(_names(ContactRow), row, strict=True))
    values["is_open"] = bool(values["is_open"])
    return ContactRow(**values)


def _outcome_row(row: Any) -> OutcomeRow:
    values = dict(zip(_names(OutcomeRow), row, strict=True))
    values["machine_generated"] = bool(values["machine_generated"])
    return OutcomeRow(**values)


class Store:
    """One database. Threads may share it; `write` blocks until its unit is on disk."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._writer = GroupWriter(self._connect())

    def _connect(self) -> sqlite3.Connection:
        pooled = self._engine.raw_connection()
        connection = cast(sqlite3.Connection, pooled.driver_connection)
        pooled.detach()
        connection.isolation_level = None
        return connection

    def _reader(self) -> Reader:
        reader = getattr(self._local, "reader", None)
        if reader is None:
            connection = self._connect()
            with self._lock:
                self._connections.append(connection)
            reader = self._local.reader = Reader(connection.cursor())
        return cast(Reader, reader)

    def read(self, question: Callable[[Reader], T]) -> T:
        """Ask the database something; each statement sees all that is committed by then.

        Raises
        ------
        StoreUnavailable: the database is locked or cannot be read.
        """
        try:
            return question(self._reader())
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the database cannot be read: {error}; try again") from error

    def write(self, unit: Callable[[Unit], T]) -> T:
        """Run a unit of work and return what it returned, once it is on disk; see GroupWriter.run for what it raises."""
        return self._writer.run(lambda cursor: unit(Unit(cursor)))

    def close(self) -> None:
        """Commit what waits and close every connection."""
        self._writer.close()
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        self._engine.dispose()
