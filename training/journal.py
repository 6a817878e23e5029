"""Writing a decision log from outside or from a simulation, in the form in which the service keeps its own."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from models.context import Contact, Context, Verdict
from models.decide import Choice, Decision
from models.features import Action
from models.record import to_micros
from service.store.identity import hash_identity
from service.store.profile import Profile
from service.store.rows import row_of
from service.store.store import ContactRow, OutcomeRow, Store, Unit

_CHUNK = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOutcome:
    """Something that happened after a logged decision."""

    type: str
    occur_time: datetime
    value_micros: int | None = None


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
    )


def write_log(store: Store, decisions: Iterable[LoggedDecision], identities: Iterable[bytes]) -> int:
    """Append logged decisions and the customers they are of to a store; return how many decisions were written.

    A decision whose request_id is there already is left out, so that an import can be repeated.
    """
    hashes = list(identities)
    for begin in range(0, len(hashes), _CHUNK):
        chunk = hashes[begin : begin + _CHUNK]
        store.write(lambda unit, chunk=chunk: _keep_customers(unit, chunk))  # type: ignore[misc]  # bound as a default
    written = 0
    batch: list[LoggedDecision] = []
    for logged in decisions:
        batch.append(logged)
        if len(batch) == _CHUNK:
            written += _flush(store, batch)
            batch = []
    return written + _flush(store, batch)


def _keep_customers(unit: Unit, hashes: list[bytes]) -> None:
    known = unit.find_identities(hashes)
    for identity_hash in hashes:
        if identity_hash not in known:
            key = customer_key(identity_hash)
            unit.insert_customer(key, Profile(), 0)
            unit.insert_identities(key, [identity_hash])


def _flush(store: Store, batch: list[LoggedDecision]) -> int:
    return store.write(lambda unit: sum(_keep(unit, logged) for logged in batch)) if batch else 0


def _keep(unit: Unit, logged: LoggedDecision) -> bool:
    context = logged.context
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
    row = row_of(Decision(context=context, choice=choice), logged.request_id, digest)
    if unit.find_request(logged.request_id, context.step) is not None or not unit.insert_decision(row):
        return False
    contact = contact_of(logged)
    if contact is not None:
        unit.insert_contact(
            ContactRow(
                decision_id=context.decision_id,
                step=context.step,
                customer_key=context.customer.key,
                channel=contact.channel,
                topic=contact.topic,
                category=contact.category,
                start_time=to_micros(contact.start),
                end_time=to_micros(contact.end),
                is_open=True,
            )
        )
    for number, outcome in enumerate(logged.outcomes):
        unit.insert_outcome(_outcome_row(logged, number, outcome))
    return True


def _outcome_row(logged: LoggedDecision, number: int, outcome: LoggedOutcome) -> OutcomeRow:
    event_id = f"{logged.request_id}/{number}"
    moment = to_micros(outcome.occur_time)
    return OutcomeRow(
        event_id=event_id,
        digest=hashlib.sha256(event_id.encode()).digest(),
        decision_id=logged.context.decision_id,
        step=logged.context.step,
        customer_key=logged.context.customer.key,
        type=outcome.type,
        occur_time=moment,
        receive_time=moment,
        status="accepted",
        value_micros=outcome.value_micros,
        cost_micros=None,
        machine_generated=False,
        csat=None,
        nps=None,
    )
