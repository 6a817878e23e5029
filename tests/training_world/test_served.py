"""The real server, in a process of its own, plays in the world."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import grpc
import numpy as np
import pytest

from models.bundle import load_bundle
from models.context import Context
from models.correction import TRIAL_STAGES, Factors
from models.record import context_from_json
from tests.funnels import write_funnel
from tests.training_world.worlds import small_world
from training import server
from training.world.clock import to_time
from training.world.money import make_bench, train_bundle
from training.world.policies import ServiceCore
from training.world.protocol import Reply
from training.world.run import World
from training.world.scenarios import RULES_FILE, make_scenario
from training.world.served import ServedPolicy


@contextmanager
def serving(folder: Path, bundle: Path | None = None) -> Iterator[str]:
    """Serve with the world's rules from a folder, with a clock that moves by requests, and give the address."""
    options = ["--rules-file", str(RULES_FILE), "--database-url", f"sqlite:///{folder / 'store.db'}"]
    if bundle is not None:
        options += ["--bundle", str(bundle)]
    with server.serving(options, folder / "service.log") as address:
        yield address


class Recorded:
    """A policy that keeps what another one answered."""

    def __init__(self, inner: ServedPolicy | ServiceCore) -> None:
        self.name, self._inner = inner.name, inner
        self.replies: list[tuple[str, int, Reply]] = []

    def decide(self, context: Context) -> Reply:
        reply = self._inner.decide(context)
        self.replies.append((context.decision_id, context.step, reply))
        return reply

    def observe(self, outcome: object) -> None:
        self._inner.observe(outcome)  # type: ignore[arg-type]  # an Outcome


@pytest.mark.parametrize("has_bundle", [False, True], ids=["rule cascade", "bundle"])
def test_a_server_decides_as_the_core_does(tmp_path: Path, *, has_bundle: bool) -> None:
    """Over gRPC, with outcomes reported and cascades advanced, each answer is that of the same code in this process."""
    folder = tmp_path / "bundle"
    bundle = train_bundle(make_bench(3, 900, 10, customers=300), 3, folder) if has_bundle else None
    world: World = small_world(count=60, customers=50)
    here = Recorded(ServiceCore(world.rules, bundle))
    inside = world.run(here)

    with serving(tmp_path, folder if has_bundle else None) as address, grpc.insecure_channel(address) as channel:
        served = ServedPolicy(channel)
        there = Recorded(served)
        outside = world.run(there)
        served.flush()

    assert len(inside.steps) > 65
    assert max(step for _, step, _ in there.replies) >= 2
    assert there.replies == here.replies
    assert outside.outcomes == inside.outcomes
    assert outside.expected == inside.expected
    assert {answer.versions.policy for answer in served.answers} >= {"inverse_gap" if has_bundle else "rule_cascade"}


def one_message_each(world: World) -> World:
    """Return a world of the first message to each customer, so that no message ends by an order that another one led to."""
    first = np.sort(np.unique(world.messages.person, return_index=True)[1])
    return World(world.people, world.messages.take(first), world.truth.scenario, world.rules, 1)


def test_a_server_learns_of_an_outage_as_the_core_does(tmp_path: Path) -> None:
    """Where push fails on the third day, server and core book the same sums, apply the same factors and decide alike, unlike a core that does
    not learn."""
    write_funnel(tmp_path / "bundle", attention={"push": 0.4, "email": 0.3, "in_app": 0.3})
    bundle = load_bundle(tmp_path / "bundle")
    world = one_message_each(small_world(count=700, customers=1500, scenario=make_scenario("push_outage", 48)))
    here = Recorded(ServiceCore(world.rules, bundle))
    inside = world.run(here)
    deaf = Recorded(ServiceCore(world.rules, bundle, is_adaptive=False))
    world.run(deaf)

    with serving(tmp_path, tmp_path / "bundle") as address, grpc.insecure_channel(address) as channel:
        served = ServedPolicy(channel)
        there = Recorded(served)
        outside = world.run(there)
        served.flush()

    assert there.replies == here.replies != deaf.replies
    assert outside.outcomes == inside.outcomes
    factors = _factors(tmp_path / "store.db")
    push = [(time, of["notice"]["push"].value) for time, of in factors if "push" in of.get("notice", {})]
    assert min(value for time, value in push if time > to_time(48)) < 0.6 * min(v for t, v in push if t <= to_time(48))
    assert {stage for _, found in factors for stage in found} == set(TRIAL_STAGES)
    assert any(outcome.type == "order" and outcome.step == 0 for outcome in outside.outcomes)


def _factors(database: Path) -> list[tuple[datetime, Factors]]:
    """Return time and factors of each decision of a log."""
    with closing(sqlite3.connect(database)) as connection:
        contexts = [context_from_json(row[0]) for row in connection.execute("SELECT context FROM decisions")]
    return [(context.decide_time, context.factors) for context in contexts]
