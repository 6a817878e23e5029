"""What calls cost before a change and after it, as more of them are in flight: servers of two checkouts in turns, on copies of the same worlds.

`python -m tests.benchmarks.in_flight --against FOLDER` prints medians of the server's CPU of a call, of calls a second and of the time that 99 of 100 stay below.
FOLDER is a checkout from before the change, with its kernels compiled.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from service.gen.channelchoice.v1.decision_pb2 import (
    DECISION_MODE_DRY_RUN,
    DECISION_MODE_LIVE,
    DECISION_VIEW_BASIC,
    DECISION_VIEW_FULL,
)
from tests.benchmarks.processes import service
from tests.benchmarks.subject import HISTORY, prepare
from tests.benchmarks.workload import World, make_request, make_worlds

_CUSTOMERS = 400
_IN_FLIGHT = (1, 4, 16)
_WARM_UP = 100
_CASES = {
    "DRY_RUN BASIC": (DECISION_MODE_DRY_RUN, DECISION_VIEW_BASIC),
    "DRY_RUN FULL": (DECISION_MODE_DRY_RUN, DECISION_VIEW_FULL),
    "LIVE BASIC": (DECISION_MODE_LIVE, DECISION_VIEW_BASIC),
}
_UNITS = ("ms CPU", "calls/s", "ms p99")


def run(world: World, calls: int) -> dict[str, list[float]]:
    """Start a server, load it, and return the figures of each case, in the order of _UNITS."""
    found = {}
    with service(world) as server:
        phase = HISTORY
        for case, (mode, view) in {"warm": _CASES["DRY_RUN FULL"], **_CASES}.items():
            for in_flight in _IN_FLIGHT if case in _CASES else (_IN_FLIGHT[-1],):
                phase += mode == DECISION_MODE_LIVE
                count = calls if case in _CASES else _WARM_UP
                requests = [
                    make_request(world, number, phase, f"{case}-{in_flight}-{number}", mode=mode, view=view)
                    for number in range(count)
                ]
                load = server.load([request.SerializeToString() for request in requests], in_flight)
                found[f"{case}, {in_flight} in flight"] = [
                    load.cpu_seconds * 1e3,
                    count / load.wall_seconds,
                    load.quantile(0.99) * 1e3,
                ]
    return {name: figures for name, figures in found.items() if not name.startswith("warm")}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.in_flight", description=__doc__)
    parser.add_argument("--against", type=Path, help="a checkout from before the change")
    parser.add_argument("--calls", type=int, default=_CUSTOMERS, help="calls of one measurement, at most 400")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--told", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.told is not None:
        name, folder, channels, slot_hours, calls = json.loads(options.told)
        world = World(name=name, folder=Path(folder), channels=tuple(channels), slot_hours=slot_hours)
        print(json.dumps(run(world, calls)))
        return 0
    if options.against is None or not 1 <= options.calls <= _CUSTOMERS:
        parser.error(f"name a checkout to hold this one against, --against FOLDER, and at most {_CUSTOMERS} calls")
    # Not at the top: what loads a server is run with the code of a checkout that may not have it.
    from tests.benchmarks.turns import in_checkout

    with tempfile.TemporaryDirectory() as folder:
        for world in make_worlds(Path(folder)):
            prepare(world, _CUSTOMERS)
            rounds = [
                [in_checkout(__file__, it, world, options.calls) for it in (options.against.resolve(), Path.cwd())]
                for _ in range(options.rounds)
            ]
            for name in rounds[0][0]:
                told = [f"{world.name:>4} rows  {name:27}"]
                for place, unit in enumerate(_UNITS):
                    before, after = (statistics.median(pair[side][name][place] for pair in rounds) for side in (0, 1))
                    told.append(f"{before:6.3g} -> {after:6.3g} {unit}")
                print("  ".join(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
