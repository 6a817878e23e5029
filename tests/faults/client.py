"""One client process: asks, repeats, reports and advances, whatever is down, and writes down every answer that it gets.

`python -m tests.faults.client ADDRESSES FILE SEED PEOPLE_PER_SECOND` until its standard input ends; what was begun is then brought to its end.
"""

import itertools
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc

from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    AdvanceCascadeRequest,
    BatchChooseChannelRequest,
    BatchChooseChannelResponse,
    ChooseChannelRequest,
)
from service.gen.channelchoice.v1.channel_choice_service_pb2_grpc import ChannelChoiceServiceStub
from service.gen.channelchoice.v1.customer_pb2 import (
    CONSENT_STATE_DENIED,
    CONSENT_STATE_GRANTED,
    IDENTITY_TYPE_EMAIL,
    ChannelConsent,
    Customer,
    CustomerRef,
    Identity,
)
from service.gen.channelchoice.v1.customer_service_pb2 import UpsertCustomersRequest
from service.gen.channelchoice.v1.customer_service_pb2_grpc import CustomerServiceStub
from service.gen.channelchoice.v1.decision_pb2 import VERDICT_SEND, Decision, Verdict
from service.gen.channelchoice.v1.message_pb2 import MESSAGE_CATEGORY_MARKETING, ChannelOption, Content, Message
from service.gen.channelchoice.v1.money_pb2 import Money
from service.gen.channelchoice.v1.outcome_pb2 import Outcome, OutcomeStatus, OutcomeType
from service.gen.channelchoice.v1.outcome_service_pb2 import ReportOutcomesRequest
from service.gen.channelchoice.v1.outcome_service_pb2_grpc import OutcomeServiceStub

T = TypeVar("T")
_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
"""What a caller may be told while something is down; it repeats the call."""
_CALL_SECONDS = 15
_PAUSE_SECONDS = 0.1
_GIVE_UP_SECONDS = 90
_CHANNELS = ("in_app", "push", "email", "viber", "sms")
_ZONES = ("Europe/Moscow", "Asia/Vladivostok", "America/New_York", "UTC")
_BATCH = 24
_CROWD = 40
"""How many people are asked about at a time, by all clients: few, so that they meet."""


class Client:
    """Asks one server after another; safe for threads."""

    def __init__(self, addresses: list[str], log: Path, seed: int, people_per_second: float) -> None:
        self._channels = [grpc.insecure_channel(address) for address in addresses]
        self._name = f"{seed}"
        self._random = random.Random(seed)
        self._rate = people_per_second
        self._numbers = itertools.count()
        self._log = log.open("a")
        self._lock = threading.Lock()
        self._past: list[ChooseChannelRequest] = []
        self.is_ending = threading.Event()

    def write(self, **entry: Any) -> None:
        with self._lock:
            self._log.write(json.dumps(entry) + "\n")
            self._log.flush()

    def call(self, ask: Callable[[grpc.Channel], T]) -> T | None:
        """Ask until there is an answer; None where there is none for long, or a refusal, which is written down."""
        began = time.monotonic()
        place = self._random.randrange(len(self._channels))
        while time.monotonic() - began < _GIVE_UP_SECONDS:
            try:
                return ask(self._channels[place % len(self._channels)])
            except grpc.RpcError as error:
                status = cast(grpc.Call, error)
                if status.code() not in _PASSING:
                    self.write(kind="refused", code=status.code().name, details=status.details())
                    return None
                place += 1
                time.sleep(_PAUSE_SECONDS)
        self.write(kind="refused", code="GAVE_UP", details="")
        return None

    def live(self) -> None:
        """Do one thing after another until told to end."""
        while not self.is_ending.is_set():
            chance = self._random.random()
            if chance < 0.08 and self._past:
                self.choose(self._random.choice(self._past))
            elif chance < 0.12:
                self.withdraw()
            elif chance < 0.3:
                self.meet_many()
            else:
                self.meet()

    def meet(self) -> None:
        """Ask about somebody, and tell what happens then."""
        request = self.request()
        decision = self.choose(request, is_hedged=self._random.random() < 0.1)
        if decision is None:
            return
        self._past = [*self._past[-200:], request]
        if decision.verdict != VERDICT_SEND:
            return
        chance = self._random.random()
        if chance < 0.4:
            if decision.send_time.seconds < time.time() + 72_000:
                self.report(decision, "SENT")
        elif chance < 0.5:
            self.report(decision, "NOT_SENT")
            self.advance(decision)
        elif chance < 0.65:
            self.report(decision, "UNDELIVERED")
            self.advance(decision)
        elif chance < 0.75:
            self.report(decision, "ORDER")
            self.report(decision, "UNDELIVERED")
            self.advance(decision)
        elif chance < 0.8:
            self.report(decision, "UNSUBSCRIBE")

    def meet_many(self) -> None:
        """Ask about many in one batch, again for those that were not decided, and report in one call what was sent."""
        requests = {request.request_id: request for request in (self.request() for _ in range(_BATCH))}
        sent: list[Decision] = []
        while requests and not self.is_ending.is_set():
            answer = self.call(partial(_choose_many, BatchChooseChannelRequest(requests=requests.values())))
            if answer is None:
                return
            for result in answer.results:
                if result.HasField("decision"):
                    self._keep_decision(result.request_id, result.decision)
                    del requests[result.request_id]
                    sent += [result.decision] if result.decision.verdict == VERDICT_SEND else []
                elif result.error.code != grpc.StatusCode.UNAVAILABLE.value[0]:
                    self.write(kind="refused", code=str(result.error.code), details=result.error.message)
                    del requests[result.request_id]
        soon = [decision for decision in sent if decision.send_time.seconds < time.time() + 72_000]
        if soon:
            self._report([self._outcome(d, self._random.choice(["SENT", "SENT", "NOT_SENT"])) for d in soon], soon)

    def person(self) -> int:
        """Return one of the people of the moment; every tenth is met by each of their identities alone, before it is told that they are one."""
        return int(time.time() * self._rate) + self._random.randrange(_CROWD)

    def request(self) -> ChooseChannelRequest:
        number = self.person()
        known = ["customer", "customer", "both"] if number % 10 else ["customer", "email", "both"]
        known_by = self._random.choice(known)
        customer = CustomerRef(time_zone=_ZONES[number % len(_ZONES)])
        if known_by != "email":
            customer.customer_id = f"person-{number}"
        if known_by != "customer":
            customer.identities.append(Identity(type=IDENTITY_TYPE_EMAIL, value=f"{number}@example.org"))
        some = self._random.sample(_CHANNELS, self._random.randint(1, len(_CHANNELS)))
        channels = self._random.choice([some, some, ["sms"], ["viber", "sms"]])
        message = Message(
            campaign="faults",
            kind="abandoned_cart",
            topic=self._random.choice(["", "cart", "sale"]),
            category=MESSAGE_CATEGORY_MARKETING,
            order_margin=Money(micros=900_000_000, currency="RUB"),
            content=Content(text="Ваша корзина ждёт."),
        )
        message.expire_time.FromSeconds(int(time.time()) + self._random.choice([1800, 7200, 86_400, 172_800]))
        return ChooseChannelRequest(
            request_id=f"{self._name}-{next(self._numbers)}-{number}",
            customer=customer,
            message=message,
            channels=[ChannelOption(channel=key, consent=CONSENT_STATE_GRANTED) for key in channels],
        )

    def choose(self, request: ChooseChannelRequest, *, is_hedged: bool = False) -> Decision | None:
        if is_hedged:
            other = threading.Thread(target=self.choose, args=(request,))
            other.start()
        answer = self.call(lambda to: ChannelChoiceServiceStub(to).ChooseChannel(request, timeout=_CALL_SECONDS))
        if is_hedged:
            other.join()
        if answer is not None:
            self._keep_decision(request.request_id, answer.decision)
        return None if answer is None else answer.decision

    def advance(self, decision: Decision) -> None:
        request = AdvanceCascadeRequest(decision_id=decision.decision_id, completed_step=decision.step)
        answer = self.call(lambda to: ChannelChoiceServiceStub(to).AdvanceCascade(request, timeout=_CALL_SECONDS))
        if answer is not None and Verdict.Name(answer.decision.verdict) != "VERDICT_DEFER":
            self._keep_decision("", answer.decision)

    def _keep_decision(self, request_id: str, decision: Decision) -> None:
        self.write(
            kind="decision",
            request_id=request_id,
            decision_id=decision.decision_id,
            step=decision.step,
            verdict=Verdict.Name(decision.verdict).removeprefix("VERDICT_").lower(),
            channel=decision.channel,
        )

    def report(self, decision: Decision, kind: str) -> None:
        """Report an outcome, now and then twice."""
        for _ in range(self._random.choice([1, 1, 1, 2])):
            self._report([self._outcome(decision, kind)], [decision])

    def _outcome(self, decision: Decision, kind: str) -> Outcome:
        outcome = Outcome(
            event_id=f"{self._name}-{kind}-{decision.decision_id}-{decision.step}",
            decision_id=decision.decision_id,
            step=decision.step,
            type=OutcomeType.Value(f"OUTCOME_TYPE_{kind}"),
        )
        if kind == "SENT":
            outcome.occur_time.CopyFrom(decision.send_time)
        else:
            outcome.occur_time.CopyFrom(decision.decide_time)
        return outcome

    def _report(self, outcomes: list[Outcome], decisions: list[Decision]) -> None:
        request = ReportOutcomesRequest(outcomes=outcomes)
        answer = self.call(lambda to: OutcomeServiceStub(to).ReportOutcomes(request, timeout=_CALL_SECONDS))
        if answer is None:
            return
        answered = time.time()
        for outcome, decision, result in zip(outcomes, decisions, answer.results, strict=True):
            self.write(
                kind="outcome",
                event_id=outcome.event_id,
                decision_id=decision.decision_id,
                type=OutcomeType.Name(outcome.type).removeprefix("OUTCOME_TYPE_").lower(),
                channel=decision.channel,
                status=OutcomeStatus.Name(result.status).removeprefix("OUTCOME_STATUS_"),
                happened=outcome.occur_time.ToNanoseconds() / 1e9,
                answered=answered,
            )

    def withdraw(self) -> None:
        """Store that somebody does not want push any more; a decision about them shows who they are."""
        request = self.request()
        denied = ChannelConsent(channel="push", state=CONSENT_STATE_DENIED, evidence="faults")
        denied.consent_time.GetCurrentTime()
        upsert = UpsertCustomersRequest(customers=[Customer(customer=request.customer, consents=[denied])])
        answer = self.call(lambda to: CustomerServiceStub(to).UpsertCustomers(upsert, timeout=_CALL_SECONDS))
        answered = time.time()
        if answer is None:
            return
        if answer.results[0].HasField("error"):
            code = grpc.StatusCode.UNAVAILABLE.value[0]
            if answer.results[0].error.code != code:
                self.write(
                    kind="refused", code=str(answer.results[0].error.code), details=answer.results[0].error.message
                )
            return
        decision = self.choose(request)
        if decision is not None:
            self.write(kind="denied", decision_id=decision.decision_id, channel="push", answered=answered)


def _choose_many(batch: BatchChooseChannelRequest, to: grpc.Channel) -> BatchChooseChannelResponse:
    answer: BatchChooseChannelResponse = ChannelChoiceServiceStub(to).BatchChooseChannel(batch, timeout=_CALL_SECONDS)
    return answer


def main(arguments: list[str]) -> int:
    addresses, log, seed, rate = arguments
    client = Client(addresses.split(","), Path(log), int(seed), float(rate))
    threads = [threading.Thread(target=client.live) for _ in range(4)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    client.is_ending.set()
    for thread in threads:
        thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
