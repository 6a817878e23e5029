"""`python -m training.world`: the money table over several seeds, as Markdown."""

import argparse
import sys
from time import perf_counter

from training.world.money import CUSTOMERS, markdown, money_table
from training.world.scenarios import SCENARIOS


def main(arguments: list[str] | None = None) -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.world", description="What each policy earns on a known world."
    )
    parser.add_argument("--seeds", type=int, default=1, help="how many worlds (default: 1)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first (default: 0)")
    parser.add_argument("--log-decisions", type=int, default=20_000, help="randomised decisions (default: 20000)")
    parser.add_argument(
        "--online-decisions", type=int, default=12_000, help="decisions of each policy (default: 12000)"
    )
    parser.add_argument("--customers", type=int, default=CUSTOMERS, help=f"customers (default: {CUSTOMERS})")
    parser.add_argument("--scenario", choices=SCENARIOS, default="stationary", help="what happens to the world")
    options = parser.parse_args(arguments)
    began = perf_counter()
    tables = [
        money_table(seed, options.log_decisions, options.online_decisions, options.scenario, options.customers)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
    ]
    print(markdown(tables))
    print(
        f"\nScenario {options.scenario}, {options.seeds} seeds, {options.customers} customers, log of "
        f"{options.log_decisions}, {options.online_decisions} online, {perf_counter() - began:.0f} s."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
