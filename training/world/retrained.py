"""The service as it is run: its decision core, and `training train` at times on everything that was decided so far.

It begins with the bundle that it is given, such as the starter bundle where there is no log at all. By a schedule it writes down
its own decisions with what became of them, after those of the log where there is one, fits a new model as the command does, and serves it from
then on; where the log cannot teach one yet, the old one stays.
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
from training.journal import LoggedDecision, LoggedOutcome, customer_hash, customer_key, write_log
from training.simulate import WINDOW
from training.world.log import KEY
from training.world.policies import ServiceCore
from training.world.protocol import Outcome, Reply

Schedule = Sequence[tuple[timedelta, timedelta]]
"""How long after the first decision a new model is trained, and how long after each decision orders are looked for."""
FROM_NOTHING: Schedule = tuple(
    (timedelta(hours=after), timedelta(hours=window))
    for after, window in ((36, 24), (60, 36), (96, 48), (144, 72), (240, 72), (384, 72))
)
"""Where there is no log: early on orders are not looked for for long, so that there are decisions whose window is over."""
WEEKLY: Schedule = tuple((timedelta(days=7 * week), WINDOW) for week in range(1, 53))
EAGER = 8
"""How many times the budget is explored with while a log that began from nothing is younger than the fourth of its times."""
_EAGER_TRAININGS = 3


@dataclass(slots=True)
class _Made:
    """A decision that was made, with what became of it."""

    context: Context
    reply: Reply
    outcomes: list[LoggedOutcome]
    written: int = -1
    """How many of its outcomes are written down; -1: the decision is not either."""


class Retrained:
    """The decision core, trained anew by a schedule on the log that there was and on its own."""

    def __init__(
        self,
        rules: Rules,
        bundle: Bundle | None,
        seed: int,
        schedule: Schedule = FROM_NOTHING,
        log: Iterable[LoggedDecision] | None = None,
        max_steps: int | None = None,
    ) -> None:
        """Serve a bundle; `log` is what it was trained on, None where there is no log, and then it explores more at first."""
        self._rules, self._seed = rules, seed
        self._left = list(schedule)
        self._begin: datetime | None = None
        self._is_eager = log is None
        self._core = ServiceCore(_eager(rules) if self._is_eager else rules, bundle, max_steps)
        self.name = (
            "service, from the starter bundle, trained on its own log"
            if log is None
            else f"{self._core.name}, trained by schedule"
        )
        self._made: dict[tuple[str, int], _Made] = {}
        self._scratch = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        self._url = f"sqlite:///{self._scratch}/log.db"
        self._trainings = 0
        self.served: list[Bundle | None] = [bundle]
        """What was served, in order."""
        self.refusals: list[str] = []
        """Why a model was not trained, each time."""
        if log is not None:
            self._write(log)

    def decide(self, context: Context) -> Reply:
        self._begin = self._begin or context.decide_time
        if self._left and context.decide_time >= self._begin + self._left[0][0]:
            self._train(context, self._left.pop(0)[1])
            if self._is_eager and self._trainings > _EAGER_TRAININGS:
                self._core.follow(self._rules)
        reply = self._core.decide(context)
        if not reply.is_deferred:
            self._made[context.decision_id, context.step] = _Made(context, reply, [])
        return reply

    def observe(self, outcome: Outcome) -> None:
        self._core.observe(outcome)
        made = self._made.get((outcome.decision_id, max(outcome.step, 1)))
        if made is not None:
            found = LoggedOutcome(type=outcome.type, occur_time=outcome.occur_time, value_micros=outcome.value_micros)
            made.outcomes.append(found)

    def _train(self, context: Context, window: timedelta) -> None:
        self._trainings += 1
        new = [made for made in self._made.values() if made.written < len(made.outcomes)]
        self._write(self._logged(made) for made in new)
        for made in new:
            made.written = len(made.outcomes)
        try:
            data = read_dataset(self._url, window, as_of=context.decide_time, with_early=True)
            fitted = fit(data, Hyperparameters(seed=self._seed), "own log", progress=lambda _: None)
        except LogUnusable as error:
            self.refusals.append(str(error))
            return
        folder = self._scratch / f"bundle-{self._trainings}"
        save(fitted, folder, f"after-{len(self._made)}")
        bundle = load_bundle(folder)
        self.served.append(bundle)
        self._core.serve(bundle)

    def _write(self, decisions: Iterable[LoggedDecision]) -> None:
        store = Store(self._url)
        try:
            write_log(store, decisions, [])
        finally:
            store.close()

    def _logged(self, made: _Made) -> LoggedDecision:
        context, reply = made.context, made.reply
        suffix = "" if context.step == 1 else f"/step-{context.step}"
        key = customer_key(customer_hash(KEY, context.customer.key))
        return LoggedDecision(
            request_id=context.decision_id + suffix,
            context=replace(context, factors={}, customer=replace(context.customer, key=key)),
            action=reply.action,
            propensity=reply.propensity,
            price_micros=0,
            policy=self._rules.policy.name,
            outcomes=tuple(made.outcomes),
            trainable=reply.action.channel != NO_SEND or reply.propensity < 1,
        )


def _eager(rules: Rules) -> Rules:
    policy = rules.policy
    assert policy.exploration_budget is not None  # the world's rules have one
    return replace(rules, policy=replace(policy, exploration_budget=EAGER * policy.exploration_budget))
