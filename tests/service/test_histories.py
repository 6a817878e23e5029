"""Random histories of a few people, held against a model of caps, budgets and repetition that fits on a page."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.gen.channelchoice.v1.channel_choice_service_pb2 import ChooseChannelRequest
from service.gen.channelchoice.v1.decision_pb2 import VERDICT_SEND, Decision
from service.gen.channelchoice.v1.outcome_pb2 import OutcomeType
from tests.postgres import PostgresServer
from tests.service.examples import DAY, HOUR, RULES, choose_request, moment_of, outcome, stamp
from tests.service.served import Served, serve

SMS = 5_300_000
BUDGET = 4 * SMS
RULES_HERE = RULES + '\n[[budgets]]\nname = "day"\nperiod = "day"\namount = "21.2"\n'
_NUMBERS = itertools.count()


@dataclass(kw_only=True)
class Contact:
    """A send as the model knows it: between which times it may happen, and whether it counts."""

    channel: str
    start: datetime
    end: datetime
    day: str
    is_open: bool = True
    outcomes: set[str] = field(default_factory=set)

    @property
    def spent(self) -> int:
        """What it takes of its day's budget, reserved or committed."""
        is_free = self.channel != "sms" or self.outcomes == {"NOT_SENT"}
        return 0 if is_free else SMS


@dataclass(kw_only=True)
class Model:
    """What a few people were sent, and what of it may be sent still."""

    people: dict[str, list[Contact]] = field(default_factory=dict)
    days: dict[str, list[Contact]] = field(default_factory=dict)

    def may_send(self, person: str, channel: str, now: datetime, moment: datetime) -> bool:
        """Tell whether caps leave room for a send at a moment, and the budget for one that is decided now."""
        sent = [contact for contact in self.people.get(person, []) if contact.is_open]
        near = [contact for contact in sent if contact.end > moment - DAY]
        if len(near) >= 3:
            return False
        if channel != "sms":
            return True
        is_first = not any(contact.channel == "sms" and contact.end > moment - 7 * DAY for contact in sent)
        return is_first and self.spent(day_of(now)) + SMS <= BUDGET

    def spent(self, day: str) -> int:
        return sum(contact.spent for contact in self.days.get(day, []))

    def add(self, person: str, decision: Decision, now: datetime) -> None:
        contact = Contact(
            channel=decision.channel,
            start=moment_of(decision.send_time),
            end=moment_of(decision.send_window_end_time),
            day=day_of(now),
        )
        self.people.setdefault(person, []).append(contact)
        self.days.setdefault(contact.day, []).append(contact)

    @staticmethod
    def settle(contact: Contact, kind: str) -> None:
        contact.outcomes.add(kind)
        is_sent = "SENT" in contact.outcomes
        contact.is_open = "UNDELIVERED" not in contact.outcomes and ("NOT_SENT" not in contact.outcomes or is_sent)
        if is_sent:
            contact.end = contact.start


def day_of(moment: datetime) -> str:
    return f"{moment.astimezone(ZoneInfo('Europe/Moscow')):%Y-%m-%d}"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service whose clock only goes on, for people of every history anew."""
    folder: Path = tmp_path_factory.mktemp("histories")
    with contextlib.ExitStack() as closing:
        changes: dict[str, Any] = {}
        if request.param == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres")
            changes["database_url"] = server.make_migrated()
            closing.callback(server.drop, changes["database_url"])
        yield closing.enter_context(serve(folder, RULES_HERE, **changes))


people = st.sampled_from(["anna", "boris"])
steps = st.one_of(
    st.tuples(st.just("choose"), people, st.sampled_from(["in_app", "in_app", "sms"])),
    st.tuples(st.just("settle"), st.integers(0, 30), st.sampled_from(["SENT", "NOT_SENT", "UNDELIVERED"])),
    st.tuples(st.just("repeat"), st.integers(0, 30), st.just("")),
    st.tuples(st.just("move"), st.sampled_from([5, 60, 480, 1440]), st.just("")),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(history=st.lists(steps, min_size=8, max_size=30))
def test_a_history_goes_as_the_model_says(service: Served, history: list[tuple[str, int | str, str]]) -> None:
    """A free channel is sent whenever its caps leave room and, as a paid one, never beyond cap or budget; repeating changes nothing."""
    service.clock.move(8 * DAY)
    model, name = Model(), f"history-{next(_NUMBERS)}"
    asked: list[tuple[ChooseChannelRequest, Decision]] = []
    sent: list[tuple[Decision, Contact]] = []
    for number, (what, which, more) in enumerate(history):
        now = service.clock.now()
        if what == "move":
            service.clock.move(timedelta(minutes=int(which)))
        elif what == "choose":
            person = f"{name}-{which}"
            request = choose_request(f"{name}-{number}", customer=person, channels=[more])
            request.message.expire_time.CopyFrom(stamp(now + HOUR))
            decision = service.decide(request)
            asked.append((request, decision))
            is_sent = decision.verdict == VERDICT_SEND
            if is_sent:
                assert model.may_send(person, more, now, moment_of(decision.send_time))
            elif more == "in_app":
                assert not model.may_send(person, more, now, now)
            if is_sent:
                model.add(person, decision, now)
                sent.append((decision, model.people[person][-1]))
        elif what == "repeat" and asked:
            request, decision = asked[int(which) % len(asked)]
            again = service.choose(request)
            assert again.replayed
            assert again.decision.decision_id == decision.decision_id
        elif what == "settle" and sent:
            decision, contact = sent[int(which) % len(sent)]
            event = f"{decision.decision_id}-{more}"
            moment = moment_of(decision.send_time)
            kind = OutcomeType.Value(f"OUTCOME_TYPE_{more}")
            (status,) = service.statuses(outcome(event, kind, decision_id=decision.decision_id, occur_time=moment))
            assert status == ("DUPLICATE" if more in contact.outcomes else "ACCEPTED")
            model.settle(contact, more)
    question = "SELECT coalesce(sum(reserved_micros + committed_micros), 0) FROM reservations WHERE decision_id = ?"
    for decision, contact in sent:
        assert int(service.rows(question, decision.decision_id)[0][0]) == contact.spent
