"""The store: reads by any thread, writes as units of work that share commits."""

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, TypeVar, cast

from models.correction import Cell, Sums
from models.errors import StoreUnavailable
from service.store.database import ACTIVE as ACTIVE
from service.store.database import ENGAGED as ENGAGED
from service.store.database import KEYED, Cursor, lock_key, tell
from service.store.database import PURCHASES as PURCHASES
from service.store.opening import open_database
from service.store.profile import Profile, profile_from_json, profile_to_json
from service.store.writer import GroupWriter

T = TypeVar("T")


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

    @property
    def is_erased(self) -> bool:
        """Whether its person was erased, so that nobody can say any more what it was made from."""
        return not self.context


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
    revenue_micros: int | None = None


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
class ExposureRow:
    """The first exposure of a person to an experiment; the columns are those of schema.exposures."""

    experiment: str
    customer_key: str
    variant: str
    probability: float
    expose_time: int
    decision_id: str
    rules_name: str
    is_mixed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRow:
    """How an experiment is run; the columns are those of schema.experiments."""

    experiment: str
    state: str
    exposure: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentChangeRow:
    """What an operator changed of an experiment; the columns are those of schema.experiment_changes."""

    experiment: str
    number: int
    change_time: int
    state: str
    exposure: float | None
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
class LedgerRow:
    """A budget in one period with its leases: what sends reserved and spent, and what others than one holder may still reserve of their own."""

    budget: str
    period_start: int
    reserved_micros: int
    committed_micros: int
    held_price: float
    price_time: int
    leased_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """Money of a budget that one process may reserve; the columns are those of schema.leases."""

    budget: str
    period_start: int
    holder: str
    left_micros: int
    reserved_micros: int
    committed_micros: int
    expire_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetChangeRow:
    """What an operator made of a budget's amount; the columns are those of schema.budget_changes."""

    budget: str
    number: int
    change_time: int
    amount_micros: int | None
    file_micros: int
    reason: str


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


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """One person: what is stored of them, and how often that, or anything that a decision about them depends on, was changed."""

    profile: Profile
    create_time: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """How far back a history goes: not further than after these times, and of activity no more than the latest."""

    contacts_after: int
    orders_after: int
    activity_after: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that a decision about a person is made from."""

    customer: CustomerRow | None = None
    contacts: tuple[ContactRow, ...] = ()
    """Those that count, in order."""
    orders: tuple[int, ...] = ()
    """Times of orders and purchases, in order."""
    activity: tuple[tuple[str, int, str, int], ...] = ()
    """(type, time, decision, step) of the latest things that they did, the newest first."""
    pauses: tuple[str, ...] = ()
    """Channels that are paused."""
    exposures: tuple[tuple[str, str, float], ...] = ()
    """(experiment, variant, probability) of their first exposure to each."""
    experiments: tuple[ExperimentRow, ...] = ()
    """How experiments are run, where that is not as the rules say."""
    budgets: tuple[LedgerRow, ...] = ()
    """Every budget in its latest period, where they were asked for."""
    amounts: Mapping[str, tuple[int | None, int]] = field(default_factory=dict)
    """The amount that operators gave a budget last, None for what the file says, and what the file said then."""


_HISTORY_PARTS = (
    "customer",
    "contact",
    "order",
    "activity",
    "pause",
    "exposure",
    "experiment",
    "budget",
    "budget_change",
)


@cache
def _names(row: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(row))


def _values(row: object) -> dict[str, Any]:
    kind: Any = type(row)
    return {name: getattr(row, name) for name in _names(kind)}


class Reader:
    """Reads through one cursor."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def _rows(self, statement: str, /, **values: Any) -> list[Any]:
        return self._cursor.rows(statement, values)

    def _row(self, statement: str, /, **values: Any) -> Any:
        return self._cursor.row(statement, values)

    def find_request(self, request_id: str, step: int = 1) -> DecisionRow | None:
        return _decision_row(self._row("find_request", request_id=request_id, step=step))

    def find_requests(self, request_ids: Iterable[str]) -> list[DecisionRow | None]:
        """Return the first step of each of these requests, in their order."""
        asked = [{"request_id": request_id, "step": 1} for request_id in request_ids]
        return [_decision_row(rows[0]) if rows else None for rows in self._cursor.rows_of_each("find_request", asked)]

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

    def find_history(self, customer_key: str, since: Since, until: int, holder: str | None = None) -> History:
        """Return all that a decision about a customer is made from; see `find_histories`."""
        (history,) = self.find_histories([customer_key], since, until, holder)
        return history

    def find_histories(
        self, customer_keys: Sequence[str], since: Since, until: int, holder: str | None = None
    ) -> list[History]:
        """Return all that decisions about customers are made from, of each in one query and so as it was at one moment.

        Budgets are in it where the holder is named whose leases of them are not others'.
        """
        asked = {"until": until, "is_open": True, **_values(since)}
        name = "find_history"
        if holder is not None:
            name, asked = "find_history_and_budgets", {**asked, "holder": holder, "now": until}
        found = self._cursor.rows_of_each(name, [{"customer_key": key, **asked} for key in customer_keys])
        return [_history(key, rows) for key, rows in zip(customer_keys, found, strict=True)]

    def find_contact(self, decision_id: str, step: int) -> ContactRow | None:
        row = self._row("find_contact", decision_id=decision_id, step=step)
        return None if row is None else _contact_row(row)

    def find_identities(self, hashes: Iterable[bytes]) -> dict[bytes, str]:
        """Return the customer key of each identity that is known."""
        asked = list(dict.fromkeys(hashes))
        found = self._cursor.rows_of_each(
            "find_identity", [{"identity_hash": identity_hash} for identity_hash in asked]
        )
        return {identity_hash: rows[0][0] for identity_hash, rows in zip(asked, found, strict=True) if rows}

    def count_identities(self, customer_key: str) -> int:
        return int(self._row("count_identities", customer_key=customer_key)[0])

    def count_all_identities(self) -> int:
        return int(self._row("count_all_identities")[0])

    def find_owners(self, decision_ids: Iterable[str]) -> dict[str, str]:
        """Return the key of the person of each decision that is known."""
        asked = list(decision_ids)
        found = self._cursor.rows_of_each("find_owner", [{"decision_id": decision_id} for decision_id in asked])
        return {decision_id: rows[0][0] for decision_id, rows in zip(asked, found, strict=True) if rows}

    def find_owner(self, decision_id: str) -> str | None:
        """Return the key of the person that a decision was for."""
        row = self._row("find_owner", decision_id=decision_id)
        return None if row is None else str(row[0])

    def find_customer(self, customer_key: str) -> CustomerRow | None:
        row = self._row("find_customer", customer_key=customer_key)
        return (
            None if row is None else CustomerRow(profile=profile_from_json(row[0]), create_time=row[1], version=row[2])
        )

    def find_profile(self, customer_key: str) -> Profile | None:
        row = self._row("find_customer", customer_key=customer_key)
        return None if row is None else profile_from_json(row[0])

    def find_create_time(self, customer_key: str) -> int | None:
        row = self._row("find_customer", customer_key=customer_key)
        return None if row is None else int(row[1])

    def list_pauses(self) -> list[PauseRow]:
        return [PauseRow(channel=row[0], pause_time=row[1], reason=row[2]) for row in self._rows("list_pauses")]

    def find_budget(self, budget: str, period_start: int, holder: str, now: int) -> LedgerRow | None:
        """Return a budget in the latest of its periods that began by then; None where it has none yet.

        What others than this holder have leased is theirs until it expires.
        """
        row = self._row("find_budget", budget=budget, period_start=period_start, holder=holder, now=now)
        return None if row is None else LedgerRow(**dict(zip(_names(LedgerRow), row, strict=True)))

    def find_lease(self, budget: str, period_start: int, holder: str, now: int) -> int:
        """Return how many micros a holder may still reserve of its own."""
        row = self._row("find_lease", key_budget=budget, key_period_start=period_start, key_holder=holder, now=now)
        return 0 if row is None else int(row[0])

    def list_expired_leases(self, now: int) -> list[tuple[str, int]]:
        """Return the budgets and period starts of which leases have expired by then."""
        return [(row[0], int(row[1])) for row in self._rows("list_expired_leases", now=now)]

    def list_exposures(self, customer_key: str) -> list[ExposureRow]:
        """Return a person's first exposure to each experiment."""
        rows = self._rows("list_exposures", customer_key=customer_key)
        found = [dict(zip(_names(ExposureRow), row, strict=True)) for row in rows]
        return [ExposureRow(**values | {"is_mixed": bool(values["is_mixed"])}) for values in found]

    def count_exposures(self) -> dict[tuple[str, str], int]:
        """Return how many people were exposed to each (experiment, variant), those of two variants left out."""
        return {(row[0], row[1]): int(row[2]) for row in self._rows("count_exposures")}

    def count_mixed(self) -> dict[str, int]:
        """Return how many people of each experiment were exposed to two variants, before it was known that they are one."""
        return {row[0]: int(row[1]) for row in self._rows("count_mixed")}

    def list_experiments(self) -> list[ExperimentRow]:
        """Return how experiments are run, where that is not as the rules say."""
        rows = self._rows("list_experiments")
        return [ExperimentRow(**dict(zip(_names(ExperimentRow), row, strict=True))) for row in rows]

    def list_experiment_changes(self, experiment: str) -> list[ExperimentChangeRow]:
        """Return what operators changed of an experiment, in order."""
        rows = self._rows("list_experiment_changes", experiment=experiment)
        return [ExperimentChangeRow(**dict(zip(_names(ExperimentChangeRow), row, strict=True))) for row in rows]

    def latest_budget_changes(self) -> dict[str, BudgetChangeRow]:
        """Return the latest change of each budget that has any."""
        rows = [
            BudgetChangeRow(**dict(zip(_names(BudgetChangeRow), row, strict=True)))
            for row in self._rows("list_budget_changes")
        ]
        return {row.budget: row for row in rows}

    def list_reservations(self, decision_id: str, step: int) -> list[ReservationRow]:
        rows = self._rows("list_reservations", decision_id=decision_id, step=step)
        return [ReservationRow(**dict(zip(_names(ReservationRow), row, strict=True))) for row in rows]

    def find_fact(self, name: str) -> bytes | None:
        row = self._row("find_fact", name=name)
        return None if row is None else bytes(row[0])

    def list_expired(self, now: int) -> list[ReservationRow]:
        """Return open reservations that expired by then, the oldest first."""
        rows = self._rows("list_expired", now=now)
        return [ReservationRow(**dict(zip(_names(ReservationRow), row, strict=True))) for row in rows]


class Unit(Reader):
    """A unit of work: reads see its own writes; all of it is kept or nothing."""

    def __init__(self, cursor: Cursor) -> None:
        super().__init__(cursor)
        self.sums: dict[Cell, Sums] = {}
        """What is to be added to statistics, at the end of the transaction."""

    def _run(self, name: str, values: Mapping[str, Any]) -> int:
        return self._cursor.run(name, values)

    def insert_decision(self, row: DecisionRow) -> bool:
        """Insert a decision; False where its request_id has this step already.

        An id of a decision is made of its request's, so that no other request can have taken it.
        """
        request = {"request_id": row.request_id, "step": row.step, "decision_id": row.decision_id}
        if not self._run("insert_request", request):
            return False
        self._cursor.insert("insert_decision", _values(row))
        return True

    def insert_outcome(self, row: OutcomeRow) -> None:
        self._cursor.insert("insert_outcome", _values(row))

    def add_statistics(self, sums: Iterable[tuple[Cell, Sums]]) -> None:
        """Add to sums; those that are not there yet begin with 0."""
        for cell, added in sums:
            self.sums[cell] = self.sums.get(cell, Sums()) + added

    def delete_statistics(self, before_hour: int) -> None:
        """Delete the sums of hours before this one, of all bundles."""
        self._run("delete_statistics", {"before_hour": before_hour})

    def insert_contact(self, row: ContactRow) -> None:
        self._cursor.insert("insert_contact", _values(row))

    def insert_exposure(self, row: ExposureRow) -> None:
        self._cursor.insert("insert_exposure", _values(row))

    def change_experiment(self, row: ExperimentRow, moment: int, reason: str) -> None:
        """Run an experiment like this from now on, and write down that it was changed."""
        self._run("delete_experiment", {"experiment": row.experiment})
        self._run("insert_experiment", _values(row))
        number = len(self.list_experiment_changes(row.experiment)) + 1
        change = ExperimentChangeRow(
            experiment=row.experiment,
            number=number,
            change_time=moment,
            state=row.state,
            exposure=row.exposure,
            reason=reason,
        )
        self._run("insert_experiment_change", _values(change))

    def add_budget(self, row: BudgetRow) -> None:
        """Add these amounts to a budget's period, which begins with them where it is not there, and set its price."""
        self._run("add_budget", _values(row))

    def take_lease(self, budget: str, period_start: int, holder: str, now: int, need: int, taken: int) -> bool:
        """Take so many micros out of a lease; False where it has expired, or holds less than is needed."""
        keys = {"key_budget": budget, "key_period_start": period_start, "key_holder": holder}
        return self._run("take_lease", {**keys, "now": now, "need_micros": need, "taken_micros": taken}) > 0

    def add_lease(self, row: LeaseRow) -> None:
        """Add to what a lease's holder has settled; where there is no lease, this is one of nothing."""
        self._run("add_lease", _values(row))

    def insert_lease(self, row: LeaseRow) -> None:
        self._cursor.insert("insert_lease", _values(row))

    def end_leases(self, budget: str, period_start: int, holder: str, now: int) -> tuple[int, int, int]:
        """Delete a holder's lease of a budget, and those that expired; return what they had left, and what is to be added to reserved and committed.

        First they are locked, so that what their holders do at the same moment is either in the sums or finds no lease.
        """
        keys = {"key_budget": budget, "key_period_start": period_start}
        if not self._run("stop_leases", {**keys, "key_holder": holder, "now": now}):
            return 0, 0, 0
        row = self._row("sum_stopped_leases", **keys)
        self._run("delete_stopped_leases", keys)
        return int(row[0]), int(row[1]), int(row[2])

    def insert_budget_change(self, row: BudgetChangeRow) -> None:
        self._cursor.insert("insert_budget_change", _values(row))

    def insert_reservation(self, row: ReservationRow) -> None:
        self._cursor.insert("insert_reservation", _values(row))

    def update_reservation(self, new: ReservationRow, old: ReservationRow) -> bool:
        """Write anew what a reservation holds; False where that is not the old one any more."""
        values = {
            "key_decision_id": old.decision_id,
            "key_step": old.step,
            "key_budget": old.budget,
            "key_reserved_micros": old.reserved_micros,
            "key_committed_micros": old.committed_micros,
            "new_reserved_micros": new.reserved_micros,
            "new_committed_micros": new.committed_micros,
        }
        return self._run("update_reservation", values) > 0

    def insert_customer(self, customer_key: str, profile: Profile, moment: int) -> bool:
        """Insert a person; False where they are there already."""
        return bool(
            self._run(
                "insert_customer",
                {
                    "customer_key": customer_key,
                    "profile": profile_to_json(profile),
                    "create_time": moment,
                    "update_time": moment,
                    "version": 0,
                },
            )
        )

    def insert_identities(self, customer_key: str, hashes: Iterable[bytes]) -> bool:
        """Give identities to a person; False where somebody has one of them."""
        values = [{"identity_hash": identity_hash, "customer_key": customer_key} for identity_hash in hashes]
        return sum(self._run("insert_identity", value) for value in values) == len(values)

    def claim_customer(self, customer_key: str, version: int) -> bool:
        """Mark a person as changed; False where they are not there any more, or were changed since this version was read."""
        return bool(self._run("claim_customer", {"key_customer_key": customer_key, "key_version": version}))

    def touch_customer(self, customer_key: str) -> None:
        """Mark a person as changed, so that decisions made from what was known before are made again."""
        self._run("touch_customer", {"key_customer_key": customer_key})

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
        self._merge_exposures(winner, losers)
        for loser in losers:
            profile = (self.find_profile(loser) or Profile()).updated(profile)
            for table in KEYED:
                self._run(f"move_{table}", {"key_customer_key": loser, "new_customer_key": winner})
            self._run("delete_customer", {"customer_key": loser})
        self.update_profile(winner, profile, moment)
        self.touch_customer(winner)

    def _merge_exposures(self, winner: str, losers: Sequence[str]) -> None:
        """Keep the first exposure to each experiment, and say where variants differ."""
        found: dict[str, ExposureRow] = {}
        rows = [row for key in (winner, *losers) for row in self.list_exposures(key)]
        for row in sorted(rows, key=lambda row: (row.expose_time, row.decision_id)):
            first = found.setdefault(row.experiment, replace(row, customer_key=winner))
            is_mixed = first.is_mixed or row.is_mixed or first.variant != row.variant
            found[row.experiment] = replace(first, is_mixed=is_mixed)
        for key in (winner, *losers) if rows else ():
            self._run("delete_exposures", {"customer_key": key})
        for kept in found.values():
            self.insert_exposure(kept)

    def erase_customer(self, customer_key: str, new_key: str) -> int:
        """Delete a person and take out of the log what tells of them; return how many rows were deleted or changed.

        Decisions and outcomes keep what was decided, when and at what price, under a new key that nothing leads to.
        """
        mine = {"customer_key": customer_key}
        moved = {"key_customer_key": customer_key, "new_customer_key": new_key, "nothing": b""}
        return (
            self._run("erase_requests", mine)
            + self._run("erase_decisions", moved | {"is_trainable": False})
            + self._run("erase_outcomes", moved)
            + self._run("move_exposures", {"key_customer_key": customer_key, "new_customer_key": new_key})
            + self._run("delete_contacts", mine)
            + self._run("delete_identities", mine)
            + self._run("delete_customer", mine)
        )

    def settle_fact(self, name: str, value: bytes) -> bytes:
        """Write a fact down where it is not known yet; return what it is."""
        self._run("insert_fact", {"name": name, "value": value})
        return self.find_fact(name) or value

    def replace_fact(self, name: str, value: bytes) -> None:
        self._run("update_fact", {"key_name": name, "new_value": value})

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


def _history(customer_key: str, rows: Iterable[Any]) -> History:
    """Put together what `find_history` found of a customer."""
    parts: dict[str, list[Any]] = {kind: [] for kind in _HISTORY_PARTS}
    for row in rows:
        parts[row[0]].append(row[1:])
    contacts = [
        ContactRow(
            decision_id=row[0],
            step=row[5],
            customer_key=customer_key,
            channel=row[1],
            topic=row[2],
            category=row[3],
            start_time=row[6],
            end_time=row[7],
            is_open=True,
        )
        for row in parts["contact"]
    ]
    activity = sorted(parts["activity"], key=lambda row: (-row[6], row[2]))
    return History(
        customer=next((CustomerRow(profile_from_json(row[0]), row[5], row[6]) for row in parts["customer"]), None),
        contacts=tuple(sorted(contacts, key=lambda row: (row.start_time, row.decision_id, row.step))),
        orders=tuple(sorted(row[5] for row in parts["order"])),
        activity=tuple((row[1], row[6], row[0], row[5]) for row in activity),
        pauses=tuple(sorted(row[0] for row in parts["pause"])),
        exposures=tuple(sorted((row[0], row[1], row[10]) for row in parts["exposure"])),
        experiments=tuple(
            ExperimentRow(experiment=row[0], state=row[1], exposure=row[10])
            for row in sorted(parts["experiment"], key=lambda row: row[0])
        ),
        budgets=tuple(
            LedgerRow(
                budget=row[0],
                period_start=row[5],
                reserved_micros=row[6],
                committed_micros=row[7],
                price_time=row[8],
                leased_micros=row[9],
                held_price=row[10],
            )
            for row in parts["budget"]
        ),
        amounts={row[0]: (row[6], row[7]) for row in sorted(parts["budget_change"], key=lambda row: row[5])},
    )


def _contact_row(row: Any) -> ContactRow:
    values = dict(zip(_names(ContactRow), row, strict=True))
    values["is_open"] = bool(values["is_open"])
    return ContactRow(**values)


def _outcome_row(row: Any) -> OutcomeRow:
    values = dict(zip(_names(OutcomeRow), row, strict=True))
    values["machine_generated"] = bool(values["machine_generated"])
    return OutcomeRow(**values)


def person_locks(keys: Iterable[str], hashes: Iterable[bytes] = ()) -> list[int]:
    """Return the locks under which persons, and what identities they have, may be written."""
    return [lock_key("person", key) for key in keys] + [lock_key("identity", h) for h in hashes]


_KEY_FACT = "identity_key"
LEDGER = lock_key("table", "budgets")
"""Under which budgets and reservations may be written."""
PAUSES = lock_key("table", "pauses")
EXPERIMENTS = lock_key("table", "experiments")


class Store:
    """One database. Threads may share it; `write` blocks until its unit is on disk."""

    def __init__(self, url: str, connections: int = 8) -> None:
        self._database = open_database(url, connections)
        self.is_shared = self._database.is_shared
        """Whether other processes are likely to write here too."""
        self._sums: dict[Cell, Sums] = {}
        self._writer = GroupWriter(self._database.session(), self._sums.clear, self._add_sums)

    def read(self, question: Callable[[Reader], T]) -> T:
        """Ask the database something; each statement sees all that is committed by then.

        Raises
        ------
        StoreUnavailable: the database is locked or cannot be read.
        """
        try:
            return self._database.reading(lambda cursor: question(Reader(cursor)))
        except self._database.broken as error:
            raise StoreUnavailable(f"try again, the database cannot be read: {tell(error)}") from error

    def write(self, unit: Callable[[Unit], T], locks: Iterable[int] = ()) -> T:
        """Run a unit of work and return what it returned, once it is on disk; see GroupWriter.run for what it raises.

        The locks are held until then against the units of every process.
        """

        return self._writer.run(self._noting_sums(unit), locks)

    def write_each(self, units: Sequence[tuple[Callable[[Unit], T], Iterable[int]]]) -> list[T | Exception]:
        """Run units of work, each under its locks, that share commits; what each returned or raised, once they are on disk or undone."""
        return self._writer.run_each([(self._noting_sums(unit), locks) for unit, locks in units])

    def _noting_sums(self, unit: Callable[[Unit], T]) -> Callable[[Cursor], T]:
        def run(cursor: Cursor) -> T:
            work = Unit(cursor)
            result = unit(work)
            for cell, sums in work.sums.items():
                self._sums[cell] = self._sums.get(cell, Sums()) + sums
            return result

        return run

    def scrub(self) -> None:
        """Take what was deleted off the disk, as far as the engine can do that at once."""
        try:
            self._database.scrub()
        except self._database.broken as error:
            raise StoreUnavailable(
                f"what was erased could not be taken off the disk yet: {error}; try again"
            ) from error

    def claim_key(self, key: bytes, previous: bytes | None = None) -> bool:
        """Tell whether identities are hashed under this key here; the first key that asks is the database's, and one that knows it replaces it."""
        value = hmac.digest(key, b"identity key", "sha256")
        found = self.read(lambda reader: reader.find_fact(_KEY_FACT))
        if found is None:
            found = self.write(lambda unit: unit.settle_fact(_KEY_FACT, value))
        if previous is not None and hmac.compare_digest(found, hmac.digest(previous, b"identity key", "sha256")):
            self.write(lambda unit: unit.replace_fact(_KEY_FACT, value))
            return True
        return hmac.compare_digest(found, value)

    def _add_sums(self, cursor: Cursor) -> None:
        """Add what a group of units had to add to statistics: in one order everywhere, so that no two groups wait for each other."""
        cells = sorted(self._sums, key=_values_of)
        cursor.run_many("add_statistics", [_values(cell) | _values(self._sums[cell]) for cell in cells])

    def close(self) -> None:
        """Commit what waits and close every connection."""
        self._writer.close()
        self._database.close()


def _values_of(row: object) -> tuple[Any, ...]:
    return tuple(_values(row).values())
