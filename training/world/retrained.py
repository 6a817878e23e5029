"""The service as it is run: its decision core, and `training train` at times on everything it has decided so far.

It begins with the bundle that it is given, such as the starter bundle where there is no log at all. By a schedule it writes down
its own decisions with what became of them, fits a new model as the command does, and serves it from then on; where the log cannot teach one yet,
the old one stays.
"""

import tempfile
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from models.bundle import Bundle, load_bundle
from models.context import Context
from models.errors import LogUnusable
from models.features import NO_SEND
from models.rules import Rules
from service.store.store import Store
from training.dataset import read_dataset
from training.fit import fit, save
from training.grow import Hyperparameters
from training.journal import LoggedDecision, LoggedOutcome, write_log
from training.world.policies import ServiceCore
from training.world.protocol import Outcome, Reply

SCHEDULE = tuple(
    (timedelta(hours=after), timedelta(hours=window))
    for after, window in ((36, 24), (60, 36), (96, 48), (144, 72), (240, 72), (384, 72))
)
"""How long after the first decision a new model is trained, and how long after each decision orders are looked for: early on not for long, so
that there are decisions whose window is over."""
EAGER = 8
"""How many times the budget is explored with while the log is younger than the fourth of these times."""


class Retrained:
    """The decision core, trained anew on its own log by a schedule."""

    def __init__(self, rules: Rules, bundle: Bundle | None, seed: int) -> None:
        self.name = "service, from the starter bundle, trained on its own log"
        self._rules, self._seed = rules, seed
        self._left = list(SCHEDULE)
        self._begin: datetime | None = None
        self._core = ServiceCore(_eager(rules), bundle)
        self._made: list[tuple[Context, Reply]] = []
        self._outcomes: dict[tuple[str, int], list[LoggedOutcome]] = {}
        self.refusals: list[str] = []
        """Why a model was not trained, each time."""

    def decide(self, context: Context) -> Reply:
        self._begin = self._begin or context.decide_time
        if self._left and context.decide_time >= self._begin + self._left[0][0]:
            self._train(context, self._left.pop(0)[1])
            if len(self._left) <= len(SCHEDULE) - 4:
                self._core.follow(self._rules)
        reply = self._core.decide(context)
        if not reply.is_deferred:
            self._made.append((context, reply))
        return reply

    def observe(self, outcome: Outcome) -> None:
        self._core.observe(outcome)
        found = LoggedOutcome(type=outcome.type, occur_time=outcome.occur_time, value_micros=outcome.value_micros)
        self._outcomes.setdefault((outcome.decision_id, max(outcome.step, 1)), []).append(found)

    def _train(self, context: Context, window: timedelta) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            url = f"sqlite:///{scratch}/log.db"
            store = Store(url)
            try:
                write_log(store, (self._logged(*made) for made in self._made), [])
            finally:
                store.close()
            try:
                data = read_dataset(url, window, as_of=context.decide_time)
                fitted = fit(data, Hyperparameters(seed=self._seed), "own log", progress=lambda _: None)
            except LogUnusable as error:
                self.refusals.append(str(error))
                return
            folder = Path(scratch) / "bundle"
            save(fitted, folder, f"after-{len(self._made)}")
            self._core.serve(load_bundle(folder))

    def _logged(self, context: Context, reply: Reply) -> LoggedDecision:
        suffix = "" if context.step == 1 else f"/step-{context.step}"
        return LoggedDecision(
            request_id=context.decision_id + suffix,
            context=replace(context, factors={}),
            action=reply.action,
            propensity=reply.propensity,
            price_micros=0,
            policy=self._rules.policy.name,
            outcomes=tuple(self._outcomes.get((context.decision_id, context.step), ())),
            trainable=reply.action.channel != NO_SEND or reply.propensity < 1,
        )


def _eager(rules: Rules) -> Rules:
    policy = rules.policy
    assert policy.exploration_budget is not None  # the world's rules have one
    return replace(rules, policy=replace(policy, exploration_budget=EAGER * policy.exploration_budget))
