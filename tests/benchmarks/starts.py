"""What a start and a process cost before a change and after it: servers of two checkouts in turns, on copies of the same worlds.

`python -m tests.benchmarks.starts --against FOLDER` prints medians of the time and the CPU from a process's start to health SERVING, of the memory then, and of the
memory after LIVE calls, 16 in flight. FOLDER is a checkout from before the change, with its kernels compiled.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from service.gen.channelchoice.v1.decision_pb2 import DECISION_MODE_LIVE, DECISION_VIEW_BASIC
from tests.benchmarks.processes import memory_megabytes, service
from tests.benchmarks.subject import HISTORY, prepare
from tests.benchmarks.workload import World, make_request, make_worlds

_CUSTOMERS = 100
_IN_FLIGHT = 16
_UNITS = ("s to SERVING", "s CPU", "MB then", "MB after calls")


def run(world: World, calls: int) -> list[float]:
    """Start a server, let it decide, and return what it took, in the order of _UNITS."""
    with service(world) as server:
        started = [server.start_seconds, server.start_cpu_seconds, memory_megabytes(server.pid)]
        requests = [
            make_request(
                world,
                number % _CUSTOMERS,
                HISTORY,
                f"start-{number}",
                mode=DECISION_MODE_LIVE,
                view=DECISION_VIEW_BASIC,
            ).SerializeToString()
            for number in range(calls)
        ]
        server.load(requests, _IN_FLIGHT)
        return [*started, memory_megabytes(server.pid)]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.starts", description=__doc__)
    parser.add_argument("--against", type=Path, help="a checkout from before the change")
    parser.add_argument("--calls", type=int, default=400, help="calls that each server answers")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is started")
    parser.add_argument("--told", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.told is not None:
        name, folder, channels, slot_hours, calls = json.loads(options.told)
        world = World(name=name, folder=Path(folder), channels=tuple(channels), slot_hours=slot_hours)
        print(json.dumps(run(world, calls)))
        return 0
    if options.against is None:
        parser.error("name a checkout to hold this one against: --against FOLDER")
    # Not at the top: what starts a server is run with the code of a checkout that may not have it.
    from tests.benchmarks.turns import in_checkout

    checkouts = (options.against.resolve(), Path.cwd())
    with tempfile.TemporaryDirectory() as folder:
        for world in make_worlds(Path(folder)):
            prepare(world, _CUSTOMERS)
            rounds = [
                [in_checkout(__file__, it, world, options.calls) for it in checkouts] for _ in range(options.rounds)
            ]
            for place, unit in enumerate(_UNITS):
                before, after = (statistics.median(pair[side][place] for pair in rounds) for side in (0, 1))
                print(f"{world.name:>4} rows  {before:7.3g} -> {after:7.3g} {unit:15} {after / before:.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
