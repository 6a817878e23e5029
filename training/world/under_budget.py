"""`python -m training.world.under_budget`: what the service earns within a budget, beside the cascade oracle within the same one.

A budget is a share of what the cascade oracle spends without one. The service is run once as it is, its spending paced by the shadow price of
`models.budget`, and once without a shadow price, where money goes to whoever comes first.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np

from training.world.budget import BudgetRow, budget_of, budget_rows
from training.world.money import CUSTOMERS, make_bench, train_bundle
from training.world.policies import Oracle, RuleOrder, ServiceCore
from training.world.protocol import Policy

AIM = 82
"""Share of the budgeted cascade oracle, in per cent, that the service is to reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is run: shares of the oracle's spending, and the sizes of the world."""

    shares: tuple[float, ...]
    log_decisions: int = 20_000
    online_decisions: int = 12_000
    customers: int = CUSTOMERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The rows under one budget, in roubles, of one seed's world."""

    seed: int
    share: float
    budget: float
    rows: tuple[BudgetRow, ...]


def run_seed(setting: Setting, seed: int) -> list[Table]:
    """Return the rows of a seed's world under each budget, the paced service's first, the oracle's last; say of each budget on stderr how the service did."""
    bench = make_bench(seed, setting.log_decisions, setting.online_decisions, customers=setting.customers)
    world, found = bench.world, []
    with tempfile.TemporaryDirectory() as scratch:
        bundle = train_bundle(bench, seed, Path(scratch))
        spend = world.run(Oracle(world)).spend
        for share in setting.shares:
            budget = round(share * spend, 2)
            limit = budget_of(world, budget)
            policies: list[Policy] = [
                ServiceCore(world.rules, bundle, budget=limit),
                ServiceCore(world.rules, bundle, budget=limit, is_paced=False),
                RuleOrder(("push", "email", "sms"), world.rules),
            ]
            rows = budget_rows(world, policies, budget)
            said = f"seed {seed}, {share:.0%}: {100 * rows[0].share:.1f} % of the budgeted oracle, {rows[0].spend:,.0f} of {budget:,.0f} spent"
            print(said, file=sys.stderr, flush=True)
            found.append(Table(seed=seed, share=share, budget=budget, rows=tuple(rows)))
    return found


def to_markdown(tables: Sequence[Table]) -> str:
    """Return a row for each budget and policy, means over seeds, and whether the goal is reached."""
    lines = [
        "| budget, of the oracle's spending | policy | share of budgeted oracle, % | net value | spent, % of budget | most spent, % |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    goals = []
    for share in sorted({table.share for table in tables}, reverse=True):
        mine = [table for table in tables if table.share == share]
        for place, row in enumerate(mine[0].rows):
            name = "best cascade of 3 within the budget (oracle)" if place == len(mine[0].rows) - 1 else row.policy
            rows = [table.rows[place] for table in mine]
            used = [100 * row.spend / table.budget for row, table in zip(rows, mine, strict=True)]
            shares, net = [100 * row.share for row in rows], np.mean([row.net for row in rows])
            figures = f"{_figure(shares)} | {net:,.0f} | {np.mean(used):.1f} | {max(used):.2f}"
            lines.append(f"| {share:.0%} | {name} | {figures} |")
        measured = 100 * np.mean([table.rows[0].share for table in mine])
        is_kept = all(table.rows[0].spend <= table.budget for table in mine)
        reached = "yes" if measured >= AIM and is_kept else "no"
        goals.append(f"| {share:.0%} | at least {AIM} %, never above the budget | {measured:.1f} % | {reached} |")
    return "\n".join(
        [*lines, "", "| budget | goal of the service | measured | reached |", "|---:|---|---:|---|", *goals]
    )


def _figure(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def main(arguments: list[str] | None = None) -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.world.under_budget", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="how many worlds (default: 2)")
    parser.add_argument("--shares", default="0.5,0.25", help="budgets as shares of the oracle's spending, with commas")
    parser.add_argument("--log-decisions", type=int, default=20_000, help="randomised decisions (default: 20000)")
    parser.add_argument(
        "--online-decisions", type=int, default=12_000, help="decisions of each policy (default: 12000)"
    )
    parser.add_argument("--customers", type=int, default=CUSTOMERS, help=f"customers (default: {CUSTOMERS})")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one for each core")
    options = parser.parse_args(arguments)
    try:
        shares = tuple(float(share) for share in options.shares.split(","))
    except ValueError:
        shares = (0.0,)
    if not all(0 < share <= 1 for share in shares):
        print("--shares: write shares above 0 up to 1 with commas between, such as 0.5,0.25", file=sys.stderr)
        return 2
    setting = Setting(
        shares=shares,
        log_decisions=options.log_decisions,
        online_decisions=options.online_decisions,
        customers=options.customers,
    )
    began = perf_counter()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        done = list(pool.map(run_seed, [setting] * options.seeds, range(options.seeds)))
    print(to_markdown([table for tables in done for table in tables]))
    print(f"\n{options.seeds} seeds, {options.online_decisions} decisions, {(perf_counter() - began) / 60:.0f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
