"""Wherever a paid step is used, the explanation holds what free channels alone would earn: of one message, of a batch, and of later steps."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from service.gen.channelchoice.v1.channel_choice_service_pb2 import BatchChooseChannelRequest
from service.gen.channelchoice.v1.decision_pb2 import VERDICT_DEFER, VERDICT_SEND, Decision
from tests.funnels import write_funnel
from tests.service.examples import DAY, HOUR, RULES, choose_request, moment_of
from tests.service.served import Served, serve

CHANNELS = ("push", "email", "sms", "viber")


@pytest.fixture
def dear(tmp_path: Path) -> Iterator[Served]:
    """A service whose bundle knows that paid channels are noticed most, and that always does what earns most."""
    write_funnel(tmp_path / "bundle", attention={"push": 0.3, "email": 0.3, "sms": 3.0, "viber": 2.0})
    rules = RULES + '\n[policy]\nname = "greedy"\n\n[timing]\nhorizon_hours = 48\n'
    with serve(tmp_path, rules, bundle=str(tmp_path / "bundle")) as service:
        yield service


def uses_paid(decision: Decision) -> bool:
    return decision.price.micros > 0 or any(step.price.micros > 0 for step in decision.cascade.steps)


def check_free_only(decision: Decision) -> None:
    """Check that the counterfactual is told, and that it is worth no more than the best plan of all channels."""
    assert decision.explanation.HasField("free_only_value")
    free = decision.explanation.free_only_value.micros
    best = max(action.plan_value.micros for action in decision.actions)
    assert 0 <= free <= best + 1
    told = f"Free channels alone would earn {free / 1e6:.2f} RUB."
    assert told in decision.explanation.sentences


def test_one_message_says_what_free_channels_would_earn(dear: Served) -> None:
    """A first step that is paid, or is followed by a paid one, has the counterfactual beside it."""
    decision = dear.decide(choose_request(channels=CHANNELS))

    assert uses_paid(decision)
    check_free_only(decision)
    assert decision.explanation.free_only_value.micros > 0


def test_each_message_of_a_batch_says_it(dear: Served) -> None:
    """Messages to one person that are decided together, and one to somebody else, each have their own."""
    requests = [choose_request(f"r{n}", channels=CHANNELS) for n in range(2)]
    requests.append(choose_request("other", customer="customer-2", channels=CHANNELS))
    requests[1].message.order_margin.micros //= 2

    answers = dear.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=requests)).results

    decisions = [answer.decision for answer in answers]
    assert sum(uses_paid(decision) for decision in decisions) >= 2
    for decision in decisions:
        if uses_paid(decision):
            check_free_only(decision)
    values = {decision.explanation.free_only_value.micros for decision in decisions if uses_paid(decision)}
    assert len(values) > 1


def test_each_later_step_says_it_anew(dear: Served) -> None:
    """AdvanceCascade weighs what is left: a paid later step is told with what the free channels that are left would earn beside what was made."""
    decision = dear.decide(choose_request(channels=CHANNELS))
    paid_steps, step, deferred = 0, 1, timedelta()
    found = decision
    while found.verdict in (VERDICT_SEND, VERDICT_DEFER) and step < 4:
        ready = found.retry_time if found.verdict == VERDICT_DEFER else found.cascade.advance_time
        dear.clock.moment = max(dear.clock.moment + HOUR, moment_of(ready))
        found = dear.advance(decision.decision_id, step)
        if found.verdict == VERDICT_SEND:
            step += 1
            if uses_paid(found):
                paid_steps += 1
                check_free_only(found)
        deferred += HOUR
        assert deferred < DAY

    assert paid_steps >= 1


def test_a_plan_of_free_channels_says_nothing_of_it(dear: Served) -> None:
    """Where nothing paid is used there is nothing to compare with."""
    decision = dear.decide(choose_request(channels=("push", "email")))

    assert not uses_paid(decision)
    assert not any("Free channels alone" in sentence for sentence in decision.explanation.sentences)
