"""What the service would have known of a customer at any moment, out of what a log holds: contacts, purchases, active hours.

An outcome is known from its `receive_time` on, and has the effect that it has in the service: SENT sets the time of a contact, NOT_SENT and
UNDELIVERED take it out, SEEN, OPENED and CLICKED tell when it was noticed. Contacts, purchases and activity are looked back on as far as the service does.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from models.context import Contact, CustomerState, latest_hours
from models.record import from_micros, to_micros
from models.rules import Rules
from service.customers import ACTIVITY_MEMORY, MOST_ACTIVITY, ORDER_MEMORY, contact_memory, first_times
from service.store.store import ACTIVE, ENGAGED, PURCHASES
from training.journal import LoggedDecision, LoggedOutcome, contact_of

_ON_CONTACTS = ("sent", "not_sent", "undelivered")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """Something that a customer did, and when it became known; times are micros."""

    occurred: int
    known: int
    type: str
    decision_id: str
    step: int


class Memory:
    """One customer's history. Decisions are kept in order of time; outcomes in any order."""

    def __init__(self, rules: Rules) -> None:
        self._contact_memory = contact_memory(rules)
        self._contacts: list[tuple[Contact, tuple[LoggedOutcome, ...]]] = []
        self._purchases: list[tuple[datetime, datetime]] = []
        self._done: list[_Done] = []

    def keep(self, logged: LoggedDecision) -> None:
        """Remember a decision with all its outcomes."""
        self.keep_contact(logged)
        self.keep_outcomes(logged.outcomes, logged.context.decision_id, logged.context.step)

    def keep_contact(self, logged: LoggedDecision) -> None:
        """Remember the contact that a decision made, if it made one."""
        contact = contact_of(logged)
        if contact is not None:
            self._contacts.append((contact, tuple(o for o in logged.outcomes if o.type in _ON_CONTACTS)))

    def keep_outcomes(self, outcomes: Iterable[LoggedOutcome], decision_id: str = "", step: int = 0) -> None:
        """Remember what the customer did: after a step of a decision, or after none."""
        for outcome in outcomes:
            known = outcome.receive_time or outcome.occur_time
            if outcome.type in PURCHASES:
                self._purchases.append((outcome.occur_time, known))
            if outcome.type in ACTIVE and not outcome.machine_generated:
                self._done.append(
                    _Done(
                        occurred=to_micros(outcome.occur_time),
                        known=to_micros(known),
                        type=outcome.type,
                        decision_id=decision_id,
                        step=step,
                    )
                )

    def fill(self, customer: CustomerState, moment: datetime) -> CustomerState:
        """Return a customer with what was known of them at a moment."""
        now, begin = to_micros(moment), to_micros(moment - ACTIVITY_MEMORY)
        known = sorted((d for d in self._done if d.known <= now and begin < d.occurred <= now), key=_occurred)
        done = [(d.type, d.occurred, d.decision_id, d.step) for d in reversed(known[-MOST_ACTIVITY:])]
        seen, clicked = first_times(done, ENGAGED), first_times(done, ("clicked",))
        self._contacts = [c for c in self._contacts if _last_moment(c) > moment - self._contact_memory]
        contacts = [
            replace(
                found,
                seen_time=seen.get((found.decision_id, found.step)),
                click_time=clicked.get((found.decision_id, found.step)),
            )
            for contact, outcomes in self._contacts
            if (found := _as_known(contact, outcomes, moment)) is not None
        ]
        purchases = (t for t, told in self._purchases if told <= moment and t > moment - ORDER_MEMORY)
        return replace(
            customer,
            contacts=tuple(sorted(contacts, key=lambda contact: contact.start)),
            order_times=tuple(sorted(purchases)),
            active_hours=latest_hours(from_micros(d[1]) for d in done),
        )


def _occurred(done: _Done) -> int:
    return done.occurred


def _last_moment(contact: tuple[Contact, tuple[LoggedOutcome, ...]]) -> datetime:
    return max([contact[0].start, *(o.occur_time for o in contact[1] if o.type == "sent")])


def _as_known(contact: Contact, outcomes: tuple[LoggedOutcome, ...], moment: datetime) -> Contact | None:
    """Return a contact as it was known at a moment; None where it did not count by then."""
    if not outcomes:
        return contact
    known = [o for o in outcomes if (o.receive_time or o.occur_time) <= moment]
    types = {o.type for o in known}
    sent = [o.occur_time for o in known if o.type == "sent"]
    if "undelivered" in types or ("not_sent" in types and not sent):
        return None
    return replace(contact, start=min(sent), end=max(sent)) if sent else contact
