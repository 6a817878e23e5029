"""A world made ready to be measured: its customers have their history, and what its requests score is known."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.context import Context
from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    BatchChooseChannelRequest,
    BatchChooseChannelResponse,
    ChooseChannelResponse,
)
from service.gen.channelchoice.v1.decision_pb2 import (
    DECISION_MODE_LIVE,
    DECISION_MODE_SHADOW,
    DECISION_VIEW_BASIC,
    DECISION_VIEW_FULL,
    VERDICT_SEND,
    DecisionMode,
    DecisionView,
)
from tests.benchmarks.processes import BATCH, Running, service
from tests.benchmarks.workload import COLUMNS, FloatArray, World, make_request

HISTORY = 3
"""Phases of live messages before anything is measured."""
SAMPLE = 64
"""How many customers' rows are scored in turn."""
_BATCH_SIZE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A world ready to be measured: its calls, the rows they score, and the size of an answer, by which the echo is made."""

    world: World
    calls: int
    matrices: list[FloatArray]
    answer_bytes: int
    contexts: list[Context]

    def requests(
        self, phase: int, name: str, mode: "DecisionMode.ValueType", view: "DecisionView.ValueType"
    ) -> list[bytes]:
        """Return one request for each customer, ready to be sent."""
        return _requests(self.world, self.calls, phase, name, mode, view)


def prepare(world: World, calls: int) -> Subject:
    """Give a world's customers their history, and find out what its requests score and how long an answer is."""
    with service(world) as server:
        for phase in range(HISTORY):
            _send_history(server, world, calls, phase)
        requests = _requests(world, SAMPLE, HISTORY, "sample", DECISION_MODE_SHADOW, DECISION_VIEW_FULL)
        answers = [server.call(request) for request in requests]
    contexts = world.contexts(
        _request_ids("sample", HISTORY, SAMPLE)
    )  # a shadow decision is logged, and changes nothing else
    matrices = world.matrices(contexts)
    _check(answers, matrices)
    lengths = sorted(map(len, answers))
    return Subject(
        world=world, calls=calls, contexts=contexts, matrices=matrices, answer_bytes=lengths[len(lengths) // 2]
    )


def _send_history(server: Running, world: World, calls: int, phase: int) -> None:
    requests = [
        make_request(world, customer, phase, key, mode=DECISION_MODE_LIVE, view=DECISION_VIEW_BASIC)
        for customer, key in enumerate(_request_ids("history", phase, calls))
    ]
    for first in range(0, calls, _BATCH_SIZE):
        batch = BatchChooseChannelRequest(requests=requests[first : first + _BATCH_SIZE])
        answer = BatchChooseChannelResponse.FromString(server.call(batch.SerializeToString(), BATCH))
        refused = [result.error.message for result in answer.results if result.HasField("error")]
        if refused:
            raise RuntimeError(f"the history was refused: {refused[0]}")


def _check(answers: Sequence[bytes], matrices: Sequence[FloatArray]) -> None:
    """Make sure that the service decides what the benchmark takes it to decide: sends, by the model, among all the rows."""
    for answer, matrix in zip(answers, matrices, strict=True):
        decision = ChooseChannelResponse.FromString(answer).decision
        if decision.degraded or len(decision.actions) != len(matrix) or matrix.shape[1] != COLUMNS:
            raise RuntimeError(
                f"{len(decision.actions)} actions answered, {matrix.shape} scored: {decision.suppressed}"
            )
    sends = sum(ChooseChannelResponse.FromString(answer).decision.verdict == VERDICT_SEND for answer in answers)
    if sends < len(answers) / 2:
        raise RuntimeError(f"only {sends} of {len(answers)} decisions send, so customers have no history")


def _requests(
    world: World, calls: int, phase: int, name: str, mode: "DecisionMode.ValueType", view: "DecisionView.ValueType"
) -> list[bytes]:
    return [
        make_request(world, customer, phase, key, mode=mode, view=view).SerializeToString()
        for customer, key in enumerate(_request_ids(name, phase, calls))
    ]


def _request_ids(name: str, phase: int, calls: int) -> list[str]:
    return [f"{name}-{phase}-{customer}" for customer in range(calls)]
