"""`python -m tests.benchmarks.turns --against FOLDER [--calls 200] [--rounds 3]`: whole calls in one process, without the transport, before and after a change.

FOLDER is a checkout from before it, with its kernels compiled (`git worktree add FOLDER COMMIT && make -C FOLDER models/libwalk.so`). Each round runs one process for each of the two, in turns,
on copies of one world with its customers' history; worlds whose names end in c are decided by response curves. Prints the medians' ratio, and whether every answer was the same to the byte.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from service import app
from service.gen.channelchoice.v1.channel_choice_service_pb2 import BatchChooseChannelRequest, ChooseChannelRequest
from service.gen.channelchoice.v1.decision_pb2 import (
    DECISION_MODE_DRY_RUN,
    DECISION_MODE_LIVE,
    DECISION_VIEW_BASIC,
    DECISION_VIEW_FULL,
)
from service.settings import load_settings
from tests.benchmarks.subject import HISTORY, prepare
from tests.benchmarks.workload import World, make_request, make_worlds

_CUSTOMERS = 100
_WARM_UP = 30
_CASES = {
    "DRY_RUN FULL": (DECISION_MODE_DRY_RUN, DECISION_VIEW_FULL),
    "DRY_RUN BASIC": (DECISION_MODE_DRY_RUN, DECISION_VIEW_BASIC),
    "LIVE BASIC": (DECISION_MODE_LIVE, DECISION_VIEW_BASIC),
}
_BATCHES = {f"batch of {size}": size for size in (4, 16, _CUSTOMERS)}
_LIVE_BATCH = f"LIVE batch of {_CUSTOMERS}"


class _Server:
    """Stands in for the server: keeps the servicer, and answers nobody."""

    port = 0

    def __init__(self, _settings: object, choice: Any, *_others: object) -> None:
        self.choice = choice

    def show_bundle(self, is_good: bool) -> None:
        """Say nothing of the bundle in health, which is not there."""


def run(world: World, calls: int) -> dict[str, tuple[float, str]]:
    """Return the CPU in ms of each sort of call, and a digest of all answers."""
    settings = load_settings(
        {
            "address": "127.0.0.1:0",
            "database_url": f"sqlite:///{world.database}",
            "identity_key_file": str(world.folder / "identity.key"),
            "rules_file": str(world.rules_file),
            "bundle": str(world.bundle),
            "clock": "request",
        }
    )
    found = {}
    with patch.object(app, "Server", _Server), app.open_app(settings) as opened:
        choice: Any = opened.server.choice  # type: ignore[attr-defined]  # of the stand-in
        choose_batch = choice.BatchChooseChannel.__wrapped__.__wrapped__  # without the thread it is answered in

        def one(request: bytes) -> bytes:
            (answer,) = choice.answer_each([request])
            return cast(bytes, answer)

        def batch(request: bytes) -> bytes:
            asked = BatchChooseChannelRequest.FromString(request)
            answer: bytes = choose_batch(choice, asked).SerializeToString()
            return answer

        for request in _requests(world, "warm", "DRY_RUN FULL", _WARM_UP):
            one(request)
        for name in ("DRY_RUN FULL", "DRY_RUN BASIC"):
            found[name] = _measure(one, _requests(world, name, name, calls), 1)
        alone = [ChooseChannelRequest.FromString(r) for r in _requests(world, "batch", "DRY_RUN BASIC", calls)]
        for name, size in _BATCHES.items():
            batches = [
                BatchChooseChannelRequest(requests=alone[first : first + size]).SerializeToString()
                for first in range(0, calls, size)
            ]
            found[name] = _measure(batch, batches, calls / len(batches))
        found["LIVE BASIC"] = _measure(one, _requests(world, "live", "LIVE BASIC", _CUSTOMERS), 1)  # moves the clock
        later = [
            make_request(world, n, HISTORY + 2, f"later-{n}", mode=DECISION_MODE_LIVE, view=DECISION_VIEW_BASIC)
            for n in range(_CUSTOMERS)
        ]
        together = BatchChooseChannelRequest(requests=later).SerializeToString()
        found[_LIVE_BATCH] = _measure(batch, [together], _CUSTOMERS)
    return found


def _measure(call: Any, requests: Sequence[bytes], decisions: float) -> tuple[float, str]:
    began = time.process_time()
    answers = [call(request) for request in requests]
    cost = (time.process_time() - began) / len(requests) / decisions * 1e3
    return cost, hashlib.sha256(b"".join(answers)).hexdigest()


def _requests(world: World, name: str, case: str, count: int) -> list[bytes]:
    mode, view = _CASES[case]
    phase = HISTORY + (mode == DECISION_MODE_LIVE)
    return [
        make_request(world, number % _CUSTOMERS, phase, f"{name}-{number}", mode=mode, view=view).SerializeToString()
        for number in range(count)
    ]


def in_checkout(script: str, checkout: Path, world: World, calls: int) -> Any:
    """Run a script of benchmarks in a process of its own on a copy of the world, with the code of a checkout; return what it printed last."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / world.name
        shutil.copytree(world.folder, copy)
        told = json.dumps([world.name, str(copy), world.channels, world.slot_hours, calls])
        ran = subprocess.run(
            [sys.executable, script, "--told", told],
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": str(checkout)},
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(ran.stdout.splitlines()[-1])


def _worlds(folder: Path) -> Iterator[World]:
    """Make worlds, each with the one model and then with response curves, their customers with their history."""
    from tests.benchmarks.curved import with_curves  # a checkout from before runs this file, and may not have it

    for world in make_worlds(folder):
        prepare(world, _CUSTOMERS)
        yield world
        yield with_curves(world)


def main() -> int:
    """Run the command; 1 where an answer differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.turns", description=__doc__)
    parser.add_argument("--against", type=Path, help="a checkout from before the change")
    parser.add_argument("--calls", type=int, default=200, help="calls of one measurement, a multiple of 100")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--told", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.told is not None:
        name, folder, channels, slot_hours, calls = json.loads(options.told)
        world = World(name=name, folder=Path(folder), channels=tuple(channels), slot_hours=slot_hours)
        print(json.dumps(run(world, calls)))
        return 0
    if options.against is None:
        parser.error("name a checkout to hold this one against: --against FOLDER")
    checkouts, is_same = (options.against.resolve(), Path.cwd()), True
    with tempfile.TemporaryDirectory() as folder:
        for world in _worlds(Path(folder)):
            rounds = [
                [in_checkout(__file__, it, world, options.calls) for it in checkouts] for _ in range(options.rounds)
            ]
            for name in (*_CASES, *_BATCHES, _LIVE_BATCH):
                before, after = (statistics.median(pair[side][name][0] for pair in rounds) for side in (0, 1))
                same = all(pair[0][name][1] == pair[1][name][1] for pair in rounds)
                is_same &= same
                print(
                    f"{world.name:>5} rows  {name:17}  {before:6.2f} -> {after:6.2f} ms CPU a decision  {after / before:.2f}"
                    + ("" if same else "  ANSWERS DIFFER"),
                    flush=True,
                )
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
