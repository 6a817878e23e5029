"""A decision log of the simulated retailer: uniformly random decisions with exact propensities, and their truth on request.

Messages are decided in the order of time, and written in it once nothing more of them will be known, so that what is in memory grows with
customers and with the numbers of the messages, not with their contexts. Visits that no message caused are written after them.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import astuple, dataclass, field
from pathlib import Path

from service.store.store import Store
from training.journal import LoggedDecision, write_log, write_outcomes
from training.world.log import log_customers, logged_message, logged_visits
from training.world.messages import make_messages
from training.world.people import make_population
from training.world.policies import Uniform
from training.world.protocol import Ended
from training.world.run import World
from training.world.scenarios import ScenarioName, begin_hour, make_scenario, world_rules, zone_shares

CUSTOMERS = 6000
DECISIONS = 20_000
MESSAGES_PER_DAY = 0.08
"""Of a customer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlan:
    """Which log to make. The same plan makes the same log; its decisions' ids begin with its name."""

    customers: int = CUSTOMERS
    decisions: int = DECISIONS
    seed: int = 0
    scenario: ScenarioName = "stationary"
    steps: int = 1
    """Most steps of the logging policy, 1 to 3; later ones are drawn alike after the rules' wait."""
    owed_share: float = 0.0
    """Of messages that are service or transactional."""
    return_share: float = 0.0
    """Of orders that come back."""
    burst_share: float = 0.0
    """Of messages that come in the hour of another one to the same customer."""

    @property
    def name(self) -> str:
        return f"retailer-{hashlib.sha256(repr(astuple(self)).encode()).hexdigest()[:8]}"

    @property
    def days(self) -> int:
        return max(2, -int(-self.decisions // (MESSAGES_PER_DAY * self.customers)))

    @property
    def change_day(self) -> int:
        """Day at whose midnight in UTC the scenario changes the world: a third of the log is before it."""
        return max(1, self.days // 3)


@dataclass(slots=True, kw_only=True)
class Made:
    """What a log holds. Money in roubles."""

    messages: int = 0
    decisions: int = 0
    written: int = 0
    """Decisions that were not there before."""
    sends: Counter[str] = field(default_factory=Counter)
    """By channel; none: decided not to send."""
    outcomes: Counter[str] = field(default_factory=Counter)
    organic_orders: int = 0
    """Orders that no click came before."""
    spend: float = 0.0
    net: float = 0.0
    """Expected net value of the logged decisions."""

    def add(self, ended: Ended) -> None:
        self.messages += 1
        self.decisions += len(ended.steps)
        for step in ended.steps:
            self.sends[step.reply.action.channel] += 1
            self.net += step.gain.net
        prices = {step.context.step: step.price_micros for step in ended.steps}
        for outcome in ended.outcomes:
            self.outcomes[outcome.type] += 1
            self.organic_orders += outcome.type == "order" and outcome.step == 0
            self.spend += prices[outcome.step] / 1e6 if outcome.type == "sent" else 0.0


def plan_world(plan: LogPlan) -> World:
    """Return the world of a log."""
    begin = begin_hour(plan.scenario, 0, plan.change_day * 24)
    scenario = make_scenario(plan.scenario, begin + plan.change_day * 24)
    people = make_population(plan.customers, plan.seed, zone_shares(plan.scenario))
    messages = make_messages(
        people,
        plan.decisions,
        begin,
        plan.days * 24,
        plan.seed,
        owed_share=plan.owed_share,
        burst_share=plan.burst_share,
    )
    return World(people, messages, scenario, world_rules(), plan.seed, name=plan.name, return_share=plan.return_share)


def make_log(
    plan: LogPlan, store: Store, key: bytes, truth_path: Path | None, progress: Callable[[int], object]
) -> Made:
    """Append the log to a store, its customers under a key, write its truth where asked, and return what was made."""
    from training.world.truth_table import TruthFile, truth_row

    world = plan_world(plan)
    hashes = log_customers(world.people, key)
    made = Made()
    with nullcontext() if truth_path is None else TruthFile(truth_path) as truth:

        def decisions() -> Iterator[LoggedDecision]:
            for ended in _in_order(world.play(Uniform(world.rules, plan.steps))):
                made.add(ended)
                if truth is not None:
                    for step in ended.steps:
                        truth.add(truth_row(world, step))
                yield from logged_message(world, hashes, ended)
                progress(1)

        made.written = write_log(store, decisions(), hashes)
    write_outcomes(store, logged_visits(world, hashes))
    return made


def _in_order(played: Iterable[Ended]) -> Iterator[Ended]:
    """Yield messages in the order in which they were decided first, each once those before it are over too."""
    waiting: dict[int, Ended] = {}
    following = 0
    for ended in played:
        waiting[ended.index] = ended
        while following in waiting:
            yield waiting.pop(following)
            following += 1
    yield from (waiting[index] for index in sorted(waiting))


def summary(made: Made) -> str:
    """Return what was made as lines of text."""
    sends = ", ".join(f"{channel} {count}" for channel, count in sorted(made.sends.items(), key=lambda c: -c[1]))
    count = made.outcomes
    return "\n".join(
        (
            f"  messages   {made.messages} in {made.decisions} decisions, {made.decisions - made.written} of them there before",
            f"  actions    {sends}",
            f"  seen       {count['seen']}, clicked {count['clicked']}, unsubscribed {count['unsubscribe']}",
            f"  orders     {count['order']}, {made.organic_orders} of them without a click before; returned {count['return']}",
            f"  cost       {made.spend:,.2f} RUB",
            f"  net value  {made.net:,.2f} RUB expected of these decisions",
        )
    )
