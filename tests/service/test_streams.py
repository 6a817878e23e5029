"""Calls of many: batches and streams."""

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest

from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    BatchChooseChannelRequest,
    ChooseChannelRequest,
    StreamChooseChannelRequest,
)
from service.gen.channelchoice.v1.decision_pb2 import DECISION_VIEW_BASIC
from service.gen.channelchoice.v1.outcome_pb2 import (
    OUTCOME_STATUS_ACCEPTED,
    OUTCOME_STATUS_DUPLICATE,
    OUTCOME_STATUS_REJECTED,
    OUTCOME_TYPE_CLICKED,
    Outcome,
)
from service.gen.channelchoice.v1.outcome_service_pb2 import StreamOutcomesRequest
from tests.service.examples import choose_request, outcome
from tests.service.served import Served, refused, serve

pytestmark = pytest.mark.usefixtures("engine")


def basic(number: int) -> ChooseChannelRequest:
    request = choose_request(f"request-{number}", customer=f"customer-{number}")
    request.view = DECISION_VIEW_BASIC
    return request


def test_a_batch_answers_in_order_with_an_error_for_each_bad_item(service: Served) -> None:
    """Items keep their places; a bad one carries its own violations and the others are decided."""
    service.choose(basic(3))
    requests = [basic(number) for number in range(5)]
    requests[1].channels[0].channel = "pigeon"
    requests[3].message.order_margin.micros = 5

    results = service.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=requests)).results

    assert [result.request_id for result in results] == [request.request_id for request in requests]
    assert [result.WhichOneof("result") for result in results] == ["decision", "error", "decision", "error", "decision"]
    assert (results[1].error.code, results[1].error.reason) == (3, "INVALID_FIELDS")
    assert [violation.field for violation in results[1].error.field_violations] == ["channels[0].channel"]
    assert (results[3].error.code, results[3].error.reason) == (6, "ID_USED_WITH_ANOTHER_BODY")


def test_a_batch_decides_as_single_calls_do_and_replays(service: Served) -> None:
    """A request gets the same decision alone and in a batch, and a repeated batch is replayed."""
    alone = service.decide(basic(0))

    first = service.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=[basic(0), basic(1)])).results
    again = service.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=[basic(0), basic(1)])).results

    assert first[0].decision == alone
    assert [result.replayed for result in first] == [True, False]
    assert [result.decision for result in again] == [result.decision for result in first]
    assert all(result.replayed for result in again)


def test_500_requests_are_one_batch(service: Served) -> None:
    """The largest batch is decided and kept whole."""
    requests = [basic(number) for number in range(500)]

    results = service.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=requests)).results

    assert len({result.decision.decision_id for result in results}) == 500
    assert service.rows("SELECT count(*) FROM decisions") == [(500,)]


def test_of_requests_worth_the_same_the_first_get_the_places_of_a_cap(service: Served) -> None:
    """A batch keeps a customer's cap; between messages that are worth the same, their order decides."""
    requests = [choose_request(f"request-{number}", channels=["in_app"]) for number in range(6)]

    results = service.decisions.BatchChooseChannel(BatchChooseChannelRequest(requests=requests)).results

    assert [result.decision.channel for result in results] == ["in_app"] * 3 + [""] * 3


def test_a_stream_answers_each_request_before_the_next_is_sent(service: Served) -> None:
    """A caller may wait for each answer: nothing is held back until more requests come."""
    waiting: SimpleQueue[StreamChooseChannelRequest | None] = SimpleQueue()

    def requests() -> Iterator[StreamChooseChannelRequest]:
        while (request := waiting.get()) is not None:
            yield request

    answers = service.decisions.StreamChooseChannel(requests(), timeout=30)
    found = []
    for number in range(5):
        waiting.put(StreamChooseChannelRequest(request=basic(number)))
        found.append(next(answers).result)
    waiting.put(None)

    assert [result.request_id for result in found] == [f"request-{number}" for number in range(5)]
    assert all(result.decision.decision_id for result in found)
    with pytest.raises(StopIteration):
        next(answers)


def test_a_bad_request_does_not_end_a_stream(service: Served) -> None:
    """A malformed request is answered with its error, and the stream goes on."""
    requests = [basic(0), ChooseChannelRequest(request_id="bad"), basic(0), basic(1)]

    answers = service.decisions.StreamChooseChannel(
        iter([StreamChooseChannelRequest(request=request) for request in requests]), timeout=30
    )
    results = [answer.result for answer in answers]

    assert [result.WhichOneof("result") for result in results] == ["decision", "error", "decision", "decision"]
    assert results[1].error.reason == "INVALID_FIELDS"
    assert [result.replayed for result in results] == [False, False, True, False]


def test_a_stream_that_the_caller_drops_keeps_what_it_answered(service: Served) -> None:
    """After a cancelled stream the answered decision is stored and the service answers others."""

    def endless() -> Iterator[StreamChooseChannelRequest]:
        number = 0
        while True:
            yield StreamChooseChannelRequest(request=basic(number))
            number += 1

    answers = service.decisions.StreamChooseChannel(endless(), timeout=30)
    decided = next(answers).result.decision
    answers.cancel()

    assert service.get(decided.decision_id).steps[0].decision_id == decided.decision_id


def test_a_stream_of_outcomes_answers_each_once_it_is_stored(service: Served) -> None:
    """Outcomes are answered in order, each with its status, a bad one among them."""
    decision = service.decide(choose_request())
    event = outcome("event", OUTCOME_TYPE_CLICKED, decision_id=decision.decision_id)
    events = [event, event, Outcome(event_id="bad")]

    answers = service.outcomes.StreamOutcomes(
        iter([StreamOutcomesRequest(outcome=event) for event in events]), timeout=30
    )

    assert [answer.result.status for answer in answers] == [
        OUTCOME_STATUS_ACCEPTED,
        OUTCOME_STATUS_DUPLICATE,
        OUTCOME_STATUS_REJECTED,
    ]


def test_open_streams_do_not_keep_unary_calls_waiting(tmp_path: Path) -> None:
    """With as many idle streams open as are allowed, one more is refused, unary calls go on, and a closed one makes room."""

    def ask(service: Served, requests: SimpleQueue[StreamChooseChannelRequest | None]) -> Iterator[object]:
        answers = service.decisions.StreamChooseChannel(iter(requests.get, None))
        requests.put(StreamChooseChannelRequest(request=basic(1)))
        assert next(answers).result.WhichOneof("result") == "decision"
        return answers

    with serve(tmp_path, workers=1, streams=2) as service:
        queues = [SimpleQueue[StreamChooseChannelRequest | None]() for _ in range(3)]
        first, _second = ask(service, queues[0]), ask(service, queues[1])
        report = StreamOutcomesRequest(outcome=outcome("event", OUTCOME_TYPE_CLICKED))
        with refused() as refusals:
            next(service.outcomes.StreamOutcomes(iter([report])))
        service.choose(basic(9))
        queues[0].put(None)
        assert list(first) == []
        ask(service, queues[2])
        for requests in queues[1:]:
            requests.put(None)

    assert refusals[0].code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "raise the setting streams" in refusals[0].message


def test_requests_of_one_customer_in_a_stream_are_decided_one_after_another(service: Served) -> None:
    """However many have come at once, each finds what those before it have booked, as if it had been sent alone."""
    alone = [choose_request(f"alone-{number}", customer="alone", channels=["in_app"]) for number in range(6)]
    mine = [choose_request(f"mine-{number}", customer="mine", channels=["in_app"]) for number in range(6)]
    requests = [request for number, one in enumerate(mine) for request in (one, basic(number))]
    expected = [service.decide(request) for request in alone]

    answers = service.decisions.StreamChooseChannel(
        iter([StreamChooseChannelRequest(request=request) for request in requests]), timeout=30
    )
    found = {answer.result.request_id: answer.result.decision for answer in answers}

    assert list(found) == [request.request_id for request in requests]
    assert [found[one.request_id].verdict for one in mine] == [decision.verdict for decision in expected]
    assert len({decision.verdict for decision in expected}) > 1
