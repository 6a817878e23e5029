"""A shop with a running experiment, whose every act the tests keep a record of: SMS first against push first.

Each day some new customers get a message. Who then orders, unsubscribes, returns or is not sent to is drawn from a seed; what was drawn is kept beside the log, so that
figures can be counted a second time from it.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from models.rules import Experiment, Rules, parse_rules
from service.decisions import Answer
from service.requests import ReportedOutcome
from tests.service.served import MovedClock
from tests.training.examples import DAY, HOUR, NOW, RULES_TOML, UNIT, ask, happened, in_process, person_of

DAYS = 22
A_DAY = 60
WINDOW_DAYS = 7.0
CONTROL, TREATED = "sms-first", "push-first"
P_ORDER = {CONTROL: 0.15, TREATED: 0.4}
SMS = 5.3
EXPERIMENT = """
[harm]
unsubscribe = "100"

[holdout]
share = 0.2
salt = "test"

[[experiments]]
name = "order"
start_time = 2026-11-01T00:00:00Z
end_time = 2027-03-01T00:00:00Z
window_days = 7
success = ["net_value", "spend"]
guardrails = [{ metric = "conversion", margin = 0.2 }]
[[experiments.variants]]
name = "sms-first"
weight = 0.5
[experiments.variants.cascade]
order = ["sms"]
[[experiments.variants]]
name = "push-first"
weight = 0.5
[experiments.variants.cascade]
order = ["push"]
"""
RULES = parse_rules(RULES_TOML + EXPERIMENT)


@dataclass(slots=True)
class Kept:
    """What is true of one customer."""

    variant: str = ""
    """Empty for those who are held out."""
    day: int = 0
    orders: int = 0
    margin: float = 0.0
    spend: float = 0.0
    messages: int = 0
    unsubscribed: int = 0
    before: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A log, and the record of it by customer key."""

    url: str
    rules: Rules
    kept: dict[str, Kept]

    @property
    def experiment(self) -> Experiment:
        return self.rules.experiments[0]

    def closed(self, variant: str) -> list[Kept]:
        """Those of a variant who have been watched for the whole window."""
        return [k for k in self.kept.values() if k.variant == variant and k.day + WINDOW_DAYS <= DAYS]

    def mean(self, variant: str, name: str) -> float:
        """The mean of something over them."""
        return float(np.mean([getattr(kept, name) for kept in self.closed(variant)]))


def run_shop(folder: Path, seed: int = 0) -> Shop:
    """Run the shop for DAYS days."""
    rng = np.random.default_rng(seed)
    clock, kept = MovedClock(), defaultdict[str, Kept](Kept)
    with in_process(folder, RULES, clock=clock) as service:
        begin = [
            replace(happened(f"before-{n}", "order", NOW - DAY, customer=f"c-{n}"), value_micros=int(300 * UNIT))
            for n in range(0, DAYS * A_DAY, 5)
        ]
        service.outcomes.report(begin)
        for day in range(DAYS):
            names = [f"c-{day * A_DAY + number}" for number in range(A_DAY)]
            answers = service.decisions.choose_all([ask(f"ask-{name}", customer=name) for name in names])
            reports: list[ReportedOutcome] = []
            for name, answer in zip(names, answers, strict=True):
                assert isinstance(answer, Answer)
                context = answer.decision.context
                record = kept[person_of(name)]
                record.day = day
                if day <= WINDOW_DAYS - 1 and int(name[2:]) % 5 == 0:
                    record.before = 300.0
                if not context.experiments:
                    assert answer.decision.choice.policy == "holdout"
                    continue
                record.variant = context.experiments[0].variant
                reports += _live(name, context.decision_id, record, clock, rng)
            service.outcomes.report(reports)
            clock.move(DAY)
        service.decisions.choose(ask("last", customer="c-0"))
    return Shop(url=service.url, rules=RULES, kept=dict(kept))


def _live(
    name: str, decision_id: str, record: Kept, clock: MovedClock, rng: np.random.Generator
) -> list[ReportedOutcome]:
    """Draw what a customer does after a message, note it, and return what is reported of it."""
    now = clock.moment
    if rng.random() < 0.05:
        return [happened(f"not-{name}", "not_sent", now + HOUR, decision_id=decision_id)]
    record.messages, cost = 1, SMS if record.variant == CONTROL else 0.0
    found = [happened(f"sent-{name}", "sent", now + timedelta(minutes=1), decision_id=decision_id)]
    if record.variant == CONTROL and rng.random() < 0.1:
        cost = 7.0
        found[0] = replace(found[0], cost_micros=7 * UNIT)
    record.spend = cost
    if rng.random() < P_ORDER[record.variant]:
        margin = float(rng.integers(200, 1000))
        moment = now + timedelta(days=float(rng.uniform(0.1, 6.9)))
        order = happened(f"order-{name}", "order", moment, decision_id=decision_id)
        found.append(replace(order, value_micros=int(margin * UNIT), revenue_micros=int(3 * margin * UNIT)))
        record.orders, record.margin = 1, margin
    if rng.random() < 0.3:
        late = happened(f"late-{name}", "order", now + 8 * DAY, decision_id=decision_id)
        found.append(replace(late, value_micros=10_000 * UNIT))
    if rng.random() < 0.08:
        found.append(happened(f"stop-{name}", "unsubscribe", now + 2 * HOUR, decision_id=decision_id))
        record.unsubscribed = 1
    return found
