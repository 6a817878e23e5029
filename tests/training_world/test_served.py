"""The real server, in a process of its own, plays in the world."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from models.context import Context
from tests.training_world.worlds import small_world
from training.world.money import make_bench, train_bundle
from training.world.policies import ServiceCore
from training.world.protocol import Reply
from training.world.run import World
from training.world.scenarios import RULES_FILE
from training.world.served import ServedPolicy


@contextmanager
def serving(folder: Path, root: Path, bundle: Path | None = None) -> Iterator[str]:
    """Serve with the world's rules from a folder, with a clock that moves by requests, and give the address."""
    arguments = [
        sys.executable,
        "-m",
        "service",
        "--address",
        "127.0.0.1:0",
        "--clock",
        "request",
        "--log-format",
        "json",
    ]
    arguments += ["--rules-file", str(RULES_FILE), "--database-url", f"sqlite:///{folder / 'store.db'}"]
    if bundle is not None:
        arguments += ["--bundle", str(bundle)]
    with subprocess.Popen(arguments, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            yield next(_address(line) for line in server.stderr if '"serving"' in line)
        finally:
            server.terminate()
            server.communicate(timeout=30)


def _address(line: str) -> str:
    return str(json.loads(line)["address"])


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
def test_a_server_decides_as_the_core_does(tmp_path: Path, root: Path, *, has_bundle: bool) -> None:
    """Over gRPC, with outcomes reported and cascades advanced, each answer is that of the same code in this process."""
    folder = tmp_path / "bundle"
    bundle = train_bundle(make_bench(3, 900, 10, customers=300), 3, folder) if has_bundle else None
    world: World = small_world(count=60, customers=50)
    here = Recorded(ServiceCore(world.rules, bundle))
    inside = world.run(here)

    with serving(tmp_path, root, folder if has_bundle else None) as address, grpc.insecure_channel(address) as channel:
        served = ServedPolicy(channel)
        there = Recorded(served)
        outside = world.run(there)
        served.flush()

    assert len(inside.steps) > 65
    assert max(step for _, step, _ in there.replies) >= 2
    assert there.replies == here.replies
    assert outside.outcomes == inside.outcomes
    assert outside.expected == inside.expected
    assert {answer.versions.policy for answer in served.answers} >= {"greedy_floor" if has_bundle else "rule_cascade"}
