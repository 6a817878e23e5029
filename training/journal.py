"""Writing a decision log from outside or from a simulation, in the form in which the service keeps its own."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar

from models.context import Contact, Context, Verdict
from models.decide import Choice, Decision, Distribution
from models.features import Action
from models.record import to_micros
from service.outcomes import apply
from service.store.identity import hash_identity
from service.store.profile import Profile
from service.store.rows import row_of
from service.store.store import ContactRow, DecisionRow, OutcomeRow, Store, Unit

T = TypeVar("T")
_CHUNK = 1000
_EFFECTIVE = frozenset({"sent", "not_sent", "undelivered", "unsubscribe", "complaint"})
"""Outcomes that change more than the log: contacts, what may be learned from, consent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOutcome:
    """Something that happened after a logged decision."""

    type: str
    occur_time: datetime
    value_micros: int | None = None
    receive_time: datetime | None = None
    """When it became known; None: when it happened."""
    machine_generated: bool = False
    cost_micros: int | None = None
    csat: int | None = None
    nps: int | None = None
    event_id: str = ""
    """Empty: made of the decision's request_id and the place among its outcomes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDecision:
    """A decision that somebody made: its context, action, propensity in (0, 1], price, and what followed."""

    request_id: str
    context: Context
    action: Action
    propensity: float
    price_micros: int
    policy: str
    outcomes: tuple[LoggedOutcome, ...] = field(default=())
    trainable: bool = True
    """False where there was nothing to choose from, as the service has it."""
    distribution: Distribution | None = None
    """What it was drawn from, where that is known."""


def customer_hash(key: bytes, customer_id: str) -> bytes:
    """Return the hash under which the service knows a customer's own id."""
    return hash_identity(key, "customer", customer_id)


def customer_key(identity_hash: bytes) -> str:
    """Return the key of a customer who is first seen under that identity."""
    return identity_hash.hex()[:32]


def contact_of(logged: LoggedDecision, slip: timedelta = timedelta(0)) -> Contact | None:
    """Return the contact that a logged decision made, None for no send."""
    if logged.action.send_time is None:
        return None
    message = logged.context.message
    return Contact(
        decision_id=logged.context.decision_id,
        channel=logged.action.channel,
        topic=message.topic,
        category=message.category,
        start=logged.action.send_time,
        end=logged.action.send_time + slip,
        step=logged.context.step,
    )


def write_log(store: Store, decisions: Iterable[LoggedDecision], identities: Iterable[bytes]) -> int:
    """Append logged decisions and the customers they are of to a store; return how many decisions were written.

    A decision whose request_id is there already is left out, so that an import can be repeated; outcomes of it that are new are added.
    """
    for chunk in _chunks(identities):
        store.write(lambda unit, chunk=chunk: _keep_customers(unit, chunk))  # type: ignore[misc]  # bound as a default
    return sum(_flush(store, chunk) for chunk in _chunks(decisions))


def write_outcomes(store: Store, outcomes: Iterable[tuple[str, LoggedOutcome]]) -> int:
    """Append outcomes that follow no decision, each with its customer's key and an event_id; return how many were new."""
    written = 0
    for chunk in _chunks(outcomes):
        written += store.write(lambda unit, chunk=chunk: _keep_outcomes(unit, chunk))  # type: ignore[misc]  # bound as a default
    return written


def _keep_outcomes(unit: Unit, outcomes: list[tuple[str, LoggedOutcome]]) -> int:
    new = [(key, outcome) for key, outcome in outcomes if unit.find_outcome(outcome.event_id) is None]
    for key, outcome in new:
        unit.insert_outcome(_outcome_row(outcome.event_id, "", 0, key, outcome))
    return len(new)


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Yield lists of at most _CHUNK values."""
    left = iter(values)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk


def _keep_customers(unit: Unit, hashes: list[bytes]) -> None:
    known = unit.find_identities(hashes)
    for identity_hash in hashes:
        if identity_hash not in known:
            key = customer_key(identity_hash)
            unit.insert_customer(key, Profile(), 0)
            unit.insert_identities(key, [identity_hash])


def _flush(store: Store, batch: list[LoggedDecision]) -> int:
    return store.write(lambda unit: sum(_keep(unit, logged) for logged in batch))


def _keep(unit: Unit, logged: LoggedDecision) -> bool:
    """Write a decision down with its contact and outcomes; of one that is known, outcomes that are new."""
    known = unit.find_request(logged.request_id, logged.context.step)
    row = known or _decision_row(logged)
    if known is None:
        if unit.find_step(row.decision_id, row.step) is not None or not unit.insert_decision(row):
            return False
        contact = contact_of(logged)
        if contact is not None:
            unit.insert_contact(_contact_row(row, contact))
    for number, outcome in enumerate(logged.outcomes):
        event_id = outcome.event_id or f"{logged.request_id}/{number}"
        if known is not None and unit.find_outcome(event_id) is not None:
            continue
        outcome_row = _outcome_row(event_id, row.decision_id, row.step, row.customer_key, outcome)
        unit.insert_outcome(outcome_row)
        if outcome.type in _EFFECTIVE:
            apply(unit, outcome_row, [row], outcome_row.receive_time)
    return known is None


def _decision_row(logged: LoggedDecision) -> DecisionRow:
    is_send = logged.action.send_time is not None
    choice = Choice(
        verdict=Verdict.SEND if is_send else Verdict.DO_NOT_SEND,
        action=logged.action,
        price_micros=logged.price_micros,
        propensity=logged.propensity,
        policy=logged.policy,
        trainable=logged.trainable,
    )
    digest = hashlib.sha256(logged.request_id.encode()).digest()
    decision = Decision(context=logged.context, choice=choice, distribution=logged.distribution)
    return row_of(decision, logged.request_id, digest)


def _contact_row(row: DecisionRow, contact: Contact) -> ContactRow:
    return ContactRow(
        decision_id=row.decision_id,
        step=row.step,
        customer_key=row.customer_key,
        channel=contact.channel,
        topic=contact.topic,
        category=contact.category,
        start_time=to_micros(contact.start),
        end_time=to_micros(contact.end),
        is_open=True,
    )


def _outcome_row(event_id: str, decision_id: str, step: int, customer_key: str, outcome: LoggedOutcome) -> OutcomeRow:
    return OutcomeRow(
        event_id=event_id,
        digest=hashlib.sha256(event_id.encode()).digest(),
        decision_id=decision_id,
        step=step,
        customer_key=customer_key,
        type=outcome.type,
        occur_time=to_micros(outcome.occur_time),
        receive_time=to_micros(outcome.receive_time or outcome.occur_time),
        status="accepted",
        value_micros=outcome.value_micros,
        cost_micros=outcome.cost_micros,
        machine_generated=outcome.machine_generated,
        csat=outcome.csat,
        nps=outcome.nps,
    )
