"""Policies under a budget: what each earns within it, as a share of what the cascade oracle earns within it.

The oracle plans at one dual price of money for all messages. That price is found for messages looked at one by one (`plan_under_budget`); in
the world contacts tire and caps bind, so that it is tried at several fractions too, and the best run within the budget counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from models.rules import Budget
from training.world.clock import to_time
from training.world.policies import Oracle, plan_under_budget
from training.world.protocol import Policy, Result
from training.world.run import World

_FRACTIONS = (1.0, 0.7, 0.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRow:
    """One policy under a budget; money in roubles."""

    policy: str
    share: float
    """Expected net value over that of the cascade oracle under the same budget."""
    net: float
    spend: float
    """What was spent: never more than the budget."""
    refused: int
    """Sends that the world refused since nothing was left."""


def budget_of(world: World, budget: float) -> Budget:
    """Return a budget in roubles as rules have it, a total for the days on which messages of a world arrive."""
    where = ZoneInfo(world.rules.time_zone)
    first, last = (to_time(int(world.messages.arrive[place])).astimezone(where).date() for place in (0, -1))
    return Budget(name="run", amount=round(budget * 1e6), period="total", start_date=first, end_date=last)


def budget_rows(
    world: World, policies: Sequence[Policy], budget: float, fractions: Sequence[float] = _FRACTIONS
) -> list[BudgetRow]:
    """Run policies on a world within a budget and return a row for each, the budgeted cascade oracle's last."""
    rows = [_row(policy, world.run(policy, budget)) for policy in policies]
    dual_price = plan_under_budget(world, budget).dual_price
    oracles = [Oracle(world, dual_price=dual_price * fraction) for fraction in (fractions if dual_price else (1.0,))]
    rows.append(max((_row(oracle, world.run(oracle, budget)) for oracle in oracles), key=lambda row: row.net))
    return [replace(row, share=row.net / rows[-1].net) for row in rows]


def _row(policy: Policy, result: Result) -> BudgetRow:
    return BudgetRow(policy=policy.name, share=1.0, net=result.expected.net, spend=result.spend, refused=result.refused)
