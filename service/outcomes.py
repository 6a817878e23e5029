"""Use case: what happened after decisions, late, twice, out of order or before the decision is known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from models.cascade import Event
from models.context import Contact
from models.errors import AlreadyExists
from models.record import from_micros, to_micros
from models.rules import Rules
from service.budgets import SETTLING
from service.budgets import settle as settle_reservations
from service.clock import Clock
from service.customers import Customers, PersonChanged, keep_person, until_unchanged
from service.learning import learn
from service.ledger import Ledger
from service.requests import ReportedOutcome
from service.store.identity import Keys
from service.store.profile import Profile
from service.store.store import ContactRow, DecisionRow, OutcomeRow, Reader, Store, Unit, person_locks

EVENTS = {
    "undelivered": Event.UNDELIVERED,
    "not_sent": Event.NOT_SENT,
    "clicked": Event.CLICKED,
    "order": Event.ORDERED,
    "store_purchase": Event.ORDERED,
    "unsubscribe": Event.UNSUBSCRIBED,
    "complaint": Event.UNSUBSCRIBED,
}


ARRIVED = frozenset({"delivered", "seen", "opened", "clicked", "unsubscribe", "complaint"})
"""What says that a message arrived, whoever opened it."""


class Status(StrEnum):
    """What became of a reported outcome."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    LATE = "late"
    PARKED = "parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What became of one outcome: a status, or why it was refused."""

    event_id: str
    status: Status | None = None
    refusal: AlreadyExists | None = None


class Outcomes:
    """Takes in outcomes."""

    def __init__(
        self, store: Store, rules: Rules, clock: Clock, customers: Customers, keys: Keys, ledger: Ledger
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._rules = rules
        self._clock = clock
        self._customers = customers
        self._keys = keys

    def report(self, outcomes: Sequence[ReportedOutcome]) -> list[Reported]:
        """Store outcomes in one unit of work and return what became of each, in order."""
        owners = [self._make_known(outcome) for outcome in outcomes]
        return until_unchanged(lambda: self._report_once(outcomes, owners))

    def _report_once(self, outcomes: Sequence[ReportedOutcome], owners: Sequence[bytes | None]) -> list[Reported]:
        now = to_micros(self._clock.now())
        decisions = {outcome.decision_id for outcome in outcomes if outcome.decision_id}
        known = self._store.read(lambda reader: _people(reader, decisions, owners))

        def unit(work: Unit) -> list[Reported]:
            if _people(work, decisions, owners) != known:
                raise PersonChanged
            for key in sorted(known):
                work.touch_customer(key)
            return [self._keep(work, outcome, owner, now) for outcome, owner in zip(outcomes, owners, strict=True)]

        is_settling = bool(self._rules.budgets) and any(outcome.type in SETTLING for outcome in outcomes)
        return self._store.write(unit, [*person_locks(known), *(self._ledger.locks if is_settling else ())])

    def _make_known(self, outcome: ReportedOutcome) -> bytes | None:
        """Write down the person an outcome names where they are new; return one of their identities, None where it names none.

        An identity, not their key: until the outcome is stored they may merge into another person.
        """
        if outcome.person is None:
            return None
        hashes = self._customers.hashes(outcome.person)

        def attempt() -> None:
            with self._customers.hold(hashes) as person:
                if person.version is None or person.new_hashes:
                    now = to_micros(self._clock.now())
                    self._store.write(lambda unit: keep_person(unit, person, now), person.locks)

        until_unchanged(attempt)
        return hashes[0]

    def _keep(self, unit: Unit, outcome: ReportedOutcome, owner: bytes | None, now: int) -> Reported:
        digest = self._keys.digest(outcome.body)
        known = unit.find_outcome(outcome.event_id)
        if known is not None:
            if not known.digest or self._keys.is_digest(
                known.digest, outcome.body
            ):  # empty where its person was erased
                return Reported(event_id=outcome.event_id, status=Status.DUPLICATE)
            return Reported(event_id=outcome.event_id, refusal=AlreadyExists("event", outcome.event_id))
        row = OutcomeRow(
            event_id=outcome.event_id,
            digest=digest,
            decision_id=outcome.decision_id,
            step=outcome.step,
            customer_key="" if owner is None else unit.find_identities([owner])[owner],
            type=outcome.type,
            occur_time=to_micros(outcome.occur_time),
            receive_time=now,
            status=Status.ACCEPTED if not outcome.decision_id else Status.PARKED,
            value_micros=outcome.value_micros,
            cost_micros=outcome.cost_micros,
            revenue_micros=outcome.revenue_micros,
            machine_generated=outcome.machine_generated,
            csat=outcome.csat,
            nps=outcome.nps,
        )
        steps = unit.list_steps(outcome.decision_id) if outcome.decision_id else []
        if steps:
            row = settle(row, steps, self._rules)
        unit.insert_outcome(row)
        if steps:
            apply(unit, row, steps, now)
            _settle(unit, row, self._rules, now, self._ledger)
        if row.status != Status.PARKED:
            learn(unit, row, steps)
        return Reported(event_id=outcome.event_id, status=Status(row.status))


def _people(reader: Reader, decisions: Iterable[str], owners: Iterable[bytes | None]) -> set[str]:
    """Return the keys of those whom outcomes of these decisions and identities are about."""
    of_identities = reader.find_identities(owner for owner in owners if owner is not None)
    return {*reader.find_owners(decisions).values(), *of_identities.values()}


def settle(row: OutcomeRow, steps: Sequence[DecisionRow], rules: Rules) -> OutcomeRow:
    """Return an outcome with the step it follows, the person it is of, and whether it came within the attribution window.

    A step that was not decided counts as the latest one at the time.
    """
    known = {step.step: step for step in steps}
    decision = known.get(row.step)
    if decision is None:
        begun = [step for step in steps if step.decide_time <= row.occur_time]
        decision = begun[-1] if begun else steps[0]
    window = timedelta(days=rules.attribution_days)
    is_late = from_micros(row.occur_time) > from_micros(decision.decide_time) + window
    status = Status.LATE if is_late else Status.ACCEPTED
    return replace(row, step=decision.step, customer_key=decision.customer_key, status=status)


def apply(unit: Unit, row: OutcomeRow, steps: Sequence[DecisionRow], now: int) -> None:
    """Let an outcome take effect on contact history, training and consent.

    The effect on a contact depends on which outcomes are known, not on their order: UNDELIVERED closes it, so does NOT_SENT unless
    SENT says otherwise, and SENT sets its time.
    """
    decision = next(step for step in steps if step.step == row.step)
    if row.type in ("sent", "not_sent", "undelivered"):
        _update_contact(unit, decision)
    if row.type == "not_sent":
        unit.update_trainable(decision.decision_id, decision.step, False)
    if row.type in ("unsubscribe", "complaint") and decision.send_time is not None:
        profile = unit.find_profile(row.customer_key) or Profile()
        moment = from_micros(row.occur_time)
        withdrawn = profile.withdrawn(decision.channel, f"{row.type} {row.event_id}", moment)
        unit.update_profile(row.customer_key, withdrawn, now)


def _settle(unit: Unit, row: OutcomeRow, rules: Rules, now: int, ledger: Ledger) -> None:
    """Let an outcome take effect on budgets."""
    if row.type in SETTLING:
        settle_reservations(unit, rules, row.decision_id, row.step, now, ledger)


def _update_contact(unit: Unit, decision: DecisionRow) -> None:
    contact = unit.find_contact(decision.decision_id, decision.step)
    if contact is None:
        return
    seen = [o for o in unit.list_outcomes(decision.decision_id) if o.step == decision.step]
    sent = [o.occur_time for o in seen if o.type == "sent"]
    types = {o.type for o in seen}
    is_open = "undelivered" not in types and ("not_sent" not in types or bool(sent))
    start, end = (min(sent), max(sent)) if sent else (contact.start_time, contact.end_time)
    unit.update_contact(replace(contact, start_time=start, end_time=end, is_open=is_open))


def adopt_parked(unit: Unit, steps: Sequence[DecisionRow], rules: Rules, now: int, ledger: Ledger) -> None:
    """Let outcomes take effect that came before their decision was known."""
    for row in unit.list_outcomes(steps[0].decision_id):
        if row.status == Status.PARKED:
            settled = settle(row, steps, rules)
            unit.update_outcome(row.event_id, settled.status, settled.step, settled.customer_key)
            apply(unit, settled, steps, now)
            _settle(unit, settled, rules, now, ledger)
            learn(unit, settled, steps)


def cascade_events(reader: Reader, decision: DecisionRow, first: DecisionRow) -> list[tuple[Event, int]]:
    """Return what has been seen of a cascade up to its latest step: failures of that step alone, all else of any step.

    An order on any channel counts from the first decision on.
    """
    found: list[tuple[Event, int]] = []
    for row in reader.list_outcomes(decision.decision_id):
        event = EVENTS.get(row.type)
        if event is None or row.machine_generated:
            continue
        if event in (Event.UNDELIVERED, Event.NOT_SENT) and row.step != decision.step:
            continue
        found.append((event, row.occur_time))
    found.extend((Event.ORDERED, t) for t in reader.list_purchases(decision.customer_key, first.decide_time - 1))
    return found


def deliveries_awaited(
    outcomes: Iterable[OutcomeRow], contacts: Iterable[Contact], rules: Rules
) -> dict[int, datetime]:
    """Return until when delivery is waited for, by step, of the sends of a message of which nobody said yet that they arrived.

    It is counted from SENT, or else from the latest moment at which the send was to be made.
    """
    arrived = {row.step for row in outcomes if row.type in ARRIVED}
    found = {}
    for contact in contacts:
        channel = rules.channels.get(contact.channel)
        if channel is not None and channel.delivery_ttl is not None and contact.step not in arrived:
            found[contact.step] = contact.end + channel.delivery_ttl
    return found


def contact_of(row: DecisionRow, topic: str, category: str, end_time: int) -> ContactRow:
    """Return the contact that a decision to send makes."""
    return ContactRow(
        decision_id=row.decision_id,
        step=row.step,
        customer_key=row.customer_key,
        channel=row.channel,
        topic=topic,
        category=category,
        start_time=row.send_time or row.decide_time,
        end_time=end_time,
        is_open=True,
    )
