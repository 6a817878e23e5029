"""`python -m tests.benchmarks.profile [--calls 300] [--lines 25]`: where `decide` spends its time, at about 40 and 240 rows."""

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path

from models.bundle import load_bundle
from models.decide import decide
from tests.benchmarks.subject import SAMPLE, prepare
from tests.benchmarks.workload import make_worlds


def main() -> None:
    """Profile decisions about the very customers that the benchmark asks about."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.profile", description=__doc__)
    parser.add_argument("--calls", type=int, default=300, help="decisions of each size")
    parser.add_argument("--lines", type=int, default=25, help="functions to print of each size")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for world in make_worlds(Path(folder)):
            contexts = prepare(world, SAMPLE).contexts
            rules, bundle = world.rules(), load_bundle(world.bundle)
            cases = [contexts[number % len(contexts)] for number in range(options.calls)]
            began = time.thread_time()
            for context in cases:
                decide(context, rules, bundle)
            cost = (time.thread_time() - began) / len(cases)
            print(f"decide, {world.name} rows: {cost * 1e3:.2f} ms CPU")
            with cProfile.Profile() as profile:
                for context in cases:
                    decide(context, rules, bundle)
            pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(options.lines)


if __name__ == "__main__":
    main()
