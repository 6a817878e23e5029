"""Decisions by response curves: the same world and customers as for the one model, with a bundle that has a funnel.

The funnel is of all features but those of time, with random weights, ten typical weeks and interest that carries over to orders, as in bundles that `training train`
writes; it has no trees, as theirs have where trees do not pay.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.bundle import RESPONSE, Description, write_bundle
from service.gen.channelchoice.v1.channel_choice_service_pb2 import ChooseChannelResponse
from service.gen.channelchoice.v1.decision_pb2 import (
    DECISION_MODE_DRY_RUN,
    DECISION_VIEW_BASIC,
    DECISION_VIEW_FULL,
    VERDICT_SEND,
    DecisionView,
)
from tests.benchmarks.bulk import in_batches
from tests.benchmarks.figures import CURVES_BATCH_RATIO, CURVES_RATIO, Measured
from tests.benchmarks.planning import make_funnel
from tests.benchmarks.processes import Running, service
from tests.benchmarks.subject import HISTORY, SAMPLE, Subject
from tests.benchmarks.workload import World, columns, golden_rows

_ORDER_INTEREST = 0.6


def with_curves(world: World) -> World:
    """Return a copy of a world, its customers with their history, whose bundle draws response curves."""
    copy = replace(world, name=f"{world.name}c", folder=world.folder.with_name(f"{world.folder.name}-curves"))
    shutil.copytree(world.folder, copy.folder)
    model = (copy.bundle / RESPONSE).read_text()
    shutil.rmtree(copy.bundle)
    write_curves(copy.bundle, world.channels, model)
    return copy


def write_curves(folder: Path, channels: tuple[str, ...], model: str) -> None:
    """Write a bundle with a funnel; the model of an order, which a bundle has too, says nothing where there is one."""
    asked = tuple(column for column in columns() if column.name not in ("local_hour", "local_weekday", "lag_hours"))
    funnel = make_funnel(columns=asked, channels=channels).description
    funnel = replace(funnel, order_interest=_ORDER_INTEREST, order_is_caused=True)
    description = Description(columns=columns(), calibration_slope=1.0, calibration_intercept=0.0, unsubscribe_rates={})
    write_bundle(folder, "benchmark-curves", description, model, golden_rows(np.random.default_rng(1), 64), funnel)


def measure(
    world: World, subject: Subject, measured: Measured, floor: float, in_flight: int, warm_up: int, phase: int = HISTORY
) -> None:
    """Measure dry calls one by one and in batches in the world with curves; `floor` is that of the subject, the same world without them, in ms.

    Customers get no live messages meanwhile, so that the phase is that after their history.
    """
    rows = f"{subject.world.name} rows"
    with service(world) as server:
        _check(server, subject, phase)
        warm = subject.requests(phase, "warm", DECISION_MODE_DRY_RUN, DECISION_VIEW_FULL)
        server.load(warm[:warm_up], in_flight)
        for view in (DECISION_VIEW_FULL, DECISION_VIEW_BASIC):
            name = DecisionView.Name(view).removeprefix("DECISION_VIEW_")
            requests = subject.requests(phase, f"curves-{name}", DECISION_MODE_DRY_RUN, view)
            cost = server.load(requests, in_flight).cpu_seconds * 1e3
            measured.add(f"ChooseChannel DRY_RUN {name}, response curves, {rows}", "ms CPU/call", cost)
            measured.add(f"{CURVES_RATIO.format(name)}, {rows}", "x", cost / floor)
        requests = subject.requests(phase, "curves-bulk", DECISION_MODE_DRY_RUN, DECISION_VIEW_BASIC)
        batch = in_batches(server, requests) * 1e3
        measured.add(f"BatchChooseChannel of 100, response curves, {rows}", "ms CPU/decision", batch)
        measured.add(f"{CURVES_BATCH_RATIO}, {rows}", "x", batch / floor)


def _check(server: Running, subject: Subject, phase: int) -> None:
    """Make sure that the service decides by the curves, among all the rows, and mostly sends."""
    requests = subject.requests(phase, "check", DECISION_MODE_DRY_RUN, DECISION_VIEW_FULL)[:SAMPLE]
    decisions = [ChooseChannelResponse.FromString(server.call(request)).decision for request in requests]
    for decision, matrix in zip(decisions, subject.matrices, strict=False):
        if decision.degraded or len(decision.actions) != len(matrix):
            raise RuntimeError(f"{len(decision.actions)} actions answered for {len(matrix)} rows")
    if sum(decision.verdict == VERDICT_SEND for decision in decisions) < len(decisions) / 2:
        raise RuntimeError("less than half of the decisions by response curves send")
