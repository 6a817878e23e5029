"""All who are compared, by the name under which a command asks for them.

Settings of the rivals are the best of those tried on seed 0: as soon as allowed against the next daytime or both, a single send against asking
again after the rules' wait, units of cost, parts of numbers, crossings of features, passes over the log, learning rates, how far each explores.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

from models.bundle import load_bundle
from training.world.ablation import without_funnel, without_rhythm
from training.world.log import logged_decisions
from training.world.money import Bench
from training.world.policies import Engagement, MostEngaged, Oracle, RepeatedSms, RuleOrder, ServiceCore, Uniform
from training.world.protocol import Policy
from training.world.retrained import WEEKLY, Retrained
from training.world.rivals import Clicks, Learner, Rival, clicks_of_log, lessons_of_log
from training.world.told import told_population

Maker = Callable[[Bench, Path | None], Policy]
"""Makes a policy for a bench; the folder holds the bundle trained on its log, None where there is none."""


def _rule_order(*order: str) -> Maker:
    return lambda bench, _: RuleOrder(order, bench.world.rules)


def _repeated_sms(times: int) -> Maker:
    return lambda bench, _: RepeatedSms(bench.world.rules, times)


def _most_engaged(*, is_best_hour: bool) -> Maker:
    def make(bench: Bench, _: Path | None) -> Policy:
        assert bench.log is not None  # named in NEEDS_LOG
        engagement = Engagement(bench.log.steps, bench.log.outcomes)
        return MostEngaged(engagement, bench.world.rules, is_best_hour=is_best_hour)

    return make


def _service(
    max_steps: int | None = None,
    *,
    without: Literal["correction", "exploration", "rhythm", "funnel"] | None = None,
) -> Maker:
    """Return who makes the service's core, whole or without a part; where there is no log, it begins with the starter bundle and learns."""

    def make(bench: Bench, folder: Path | None) -> Policy:
        assert folder is not None  # there is a bundle for each world
        rules, bundle = bench.world.rules, load_bundle(folder)
        if bench.log is None:
            return Retrained(rules, bundle, seed=0)
        if without == "exploration":
            rules = replace(rules, policy=replace(rules.policy, name="greedy"))
        if without == "rhythm":
            bundle = without_rhythm(bundle)
        if without == "funnel":
            bundle = without_funnel(bundle)
        core = ServiceCore(rules, bundle, max_steps, is_adaptive=without != "correction")
        if without is not None:
            core.name = f"service, without {without}"
        return core

    return make


def _retrained(max_steps: int | None = None) -> Maker:
    """Return who makes the service's core that is trained anew each week on the bench's log and on what it has decided since."""

    def make(bench: Bench, folder: Path | None) -> Policy:
        assert folder is not None  # there is a bundle for each world
        assert bench.log is not None  # named in NEEDS_LOG
        assert bench.log_world is not None  # it has a log
        log = logged_decisions(bench.log_world, bench.log)
        policy = Retrained(bench.world.rules, load_bundle(folder), 0, WEEKLY, log, max_steps)
        policy.name = policy.name.replace("by schedule", "weekly")
        return policy

    return make


def _oracle(max_steps: int) -> Maker:
    return lambda bench, _: Oracle(bench.world, max_steps)


def _told(bench: Bench, _: Path | None) -> Policy:
    truth = replace(bench.world.truth, people=told_population(bench.people))
    return Oracle(bench.world, truth=truth, name="best cascade of 3 by told traits alone")


def _rival(
    bench: Bench, learner: Learner, *, batch: timedelta = timedelta(), passes: int = 1, is_by_clicks: bool = False
) -> Policy:
    """Return a rival that sends at once or not at all, warm-started by so many passes over the log."""
    rules, clicks = bench.world.rules, Clicks() if is_by_clicks else None
    if bench.log is not None:
        clicks = clicks_of_log(bench.log) if is_by_clicks else None
        lessons = lessons_of_log(bench.log, rules, "now", clicks)
        for _ in range(passes):
            learner.learn(lessons)
    return Rival(learner, rules, batch=batch, clicks=clicks)


def _vowpal(name: str, explorer: str, *, is_by_clicks: bool = False) -> Maker:
    def make(bench: Bench, _: Path | None) -> Policy:
        from training.world.vowpal import VowpalWabbit  # here, since few rows need it

        return _rival(bench, VowpalWabbit(name, explorer), passes=2, is_by_clicks=is_by_clicks)

    return make


def _mabwiser(name: str, alpha: float, l2: float, *, is_by_clicks: bool = False) -> Maker:
    def make(bench: Bench, _: Path | None) -> Policy:
        from mabwiser.mab import LearningPolicy  # here, since few rows need it and it loads much

        from training.world.mabwiser_rivals import MabWiser

        policy = getattr(LearningPolicy, name)(alpha=alpha, l2_lambda=l2)
        return _rival(bench, MabWiser(name, policy), batch=timedelta(days=1), is_by_clicks=is_by_clicks)

    return make


CONTENDERS: Mapping[str, Maker] = {
    "sms-3": _repeated_sms(3),
    "sms-1": _repeated_sms(1),
    "push-email-sms": _rule_order("push", "email", "sms"),
    "free": _rule_order("in_app", "push", "email"),
    "uniform": lambda bench, _: Uniform(bench.world.rules),
    "engaged-hour": _most_engaged(is_best_hour=True),
    "engaged-daytime": _most_engaged(is_best_hour=False),
    "vw-squarecb": _vowpal("squarecb", "--squarecb --cb_type mtr"),
    "vw-regcb": _vowpal("regcb", "--regcb --mellowness 1e-5 --cb_min_cost -10 --cb_max_cost 1.5 --cb_type mtr"),
    "vw-bag": _vowpal("bag", "--bag 5 --cb_type mtr"),
    "vw-epsilon": _vowpal("epsilon", "--epsilon 0.01 --cb_type mtr"),
    "vw-bag-clicks": _vowpal("bag", "--bag 5 --cb_type mtr", is_by_clicks=True),
    "lin-ucb": _mabwiser("LinUCB", 0.1, 30.0),
    "lin-ts": _mabwiser("LinTS", 0.1, 1.0),
    "lin-ts-clicks": _mabwiser("LinTS", 0.1, 1.0, is_by_clicks=True),
    "service": _service(),
    "service-weekly": _retrained(),
    "service-1": _service(max_steps=1),
    "service-1-weekly": _retrained(max_steps=1),
    "service-2": _service(max_steps=2),
    "no-exploration": _service(without="exploration"),
    "no-correction": _service(without="correction"),
    "no-rhythm": _service(without="rhythm"),
    "no-funnel": _service(without="funnel"),
    "told": _told,
    "oracle-1": _oracle(1),
    "oracle-2": _oracle(2),
    "oracle-3": _oracle(3),
}
"""In the order of the table."""
ABLATION = ("no-exploration", "no-correction", "no-rhythm", "no-funnel")
"""The service without one of its parts; without cascades it is service-1, with shorter ones service-2."""
WEEKLY_ROWS = ("service-weekly", "service-1-weekly")
"""The service with a bundle that is trained anew each week on the log and on its own decisions, the data that bandit libraries learn from online."""
USUAL = tuple(
    name for name in CONTENDERS if name not in ("uniform", "service-2", "told", "oracle-2", *WEEKLY_ROWS, *ABLATION)
)
"""Those that run unless others are named; the rest no goal of the stationary scenario needs, or takes long."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "all": tuple(CONTENDERS),
    "usual": USUAL,
    "ablation": ("service", "service-1", "service-2", *ABLATION),
    "change": ("engaged-daytime", "free", "vw-regcb", "lin-ucb", "service", "no-correction"),
    "retrained": (
        "vw-regcb",
        "vw-bag-clicks",
        "lin-ucb",
        "lin-ts-clicks",
        "service",
        "service-1",
        *WEEKLY_ROWS,
        "oracle-1",
    ),
}
"""Names for several rows."""
SERVED = frozenset({*GROUPS["ablation"], *WEEKLY_ROWS})
"""Those that serve the bundle."""
NEEDS_LOG = frozenset({"engaged-hour", "engaged-daytime", *SERVED}) - {"service"}
"""Left out where there is no log."""
HAND_WRITTEN = ("sms-3", "sms-1", "push-email-sms", "free")
VOWPAL = ("vw-squarecb", "vw-regcb", "vw-bag", "vw-epsilon")
MABWISER = ("lin-ucb", "lin-ts")
VOWPAL_CLICKS, MABWISER_CLICKS = ("vw-bag-clicks",), ("lin-ts-clicks",)
THREE_SMS, SINGLE_ORACLE, ORACLE = "sms-3", "oracle-1", "oracle-3"
