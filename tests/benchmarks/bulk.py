"""What a decision costs in a batch and in a stream, beside one call for each."""

from service.gen.channelchoice.v1.channel_choice_service_pb2 import (
    BatchChooseChannelRequest,
    ChooseChannelRequest,
    StreamChooseChannelRequest,
)
from service.gen.channelchoice.v1.decision_pb2 import DECISION_MODE_DRY_RUN, DECISION_VIEW_BASIC
from tests.benchmarks.figures import BATCH_RATIO, STREAM_RATIO, Measured
from tests.benchmarks.processes import BATCH, Running, cpu_seconds
from tests.benchmarks.subject import Subject

_BATCH_SIZE = 100
_STREAMS = 4


def measure(server: Running, subject: Subject, phase: int, measured: Measured, in_flight: int) -> None:
    """Measure the same decisions three ways, one after the other; nothing is written."""
    rows = f"{subject.world.name} rows"
    requests = subject.requests(phase, "bulk", DECISION_MODE_DRY_RUN, DECISION_VIEW_BASIC)
    alone = server.load(requests, in_flight).cpu_seconds
    batch = in_batches(server, requests)
    measured.add(f"BatchChooseChannel of {_BATCH_SIZE}, {rows}", "ms CPU/decision", batch * 1e3)
    messages = [
        StreamChooseChannelRequest(request=ChooseChannelRequest.FromString(request)).SerializeToString()
        for request in requests
    ]
    stream = server.stream(messages, _STREAMS)
    measured.add(f"StreamChooseChannel, {_STREAMS} streams, {rows}", "ms CPU/decision", stream * 1e3)
    measured.add(f"{BATCH_RATIO}, {rows}", "x", batch / alone)
    measured.add(f"{STREAM_RATIO}, {rows}", "x", stream / alone)


def in_batches(server: Running, requests: list[bytes]) -> float:
    """Send all requests in batches, one batch at a time, and return the server's CPU seconds of one decision."""
    parsed = [ChooseChannelRequest.FromString(request) for request in requests]
    batches = [
        BatchChooseChannelRequest(requests=parsed[first : first + _BATCH_SIZE]).SerializeToString()
        for first in range(0, len(parsed), _BATCH_SIZE)
    ]
    cpu = cpu_seconds(server.pid)
    for batch in batches:
        server.call(batch, BATCH)
    return (cpu_seconds(server.pid) - cpu) / len(requests)
