"""The service as it is run: its decision core, and `training train` at times on everything it has decided so far.

It begins with the bundle that it is given, such as the starter bundle where there is no log at all. After so many decisions it writes down
its own decisions with what became of them, fits a new model as the command does, and serves it from then on; where the log cannot teach one yet,
the old one stays.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
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
from training.simulate import WINDOW
from training.world.policies import ServiceCore
from training.world.protocol import Outcome, Reply

TIMES = (1000, 2500, 5000, 9000)
"""After how many decisions a new model is trained."""


class Retrained:
    """The decision core, trained anew on its own log after so many decisions."""

    def __init__(self, rules: Rules, bundle: Bundle | None, seed: int, times: Sequence[int] = TIMES) -> None:
        self.name = "service, trained on its own log"
        self._rules, self._seed, self._times = rules, seed, tuple(times)
        self._core = ServiceCore(rules, bundle)
        self._made: list[tuple[Context, Reply]] = []
        self._outcomes: dict[tuple[str, int], list[LoggedOutcome]] = {}

    def decide(self, context: Context) -> Reply:
        if len(self._made) in self._times:
            self._train(context)
        reply = self._core.decide(context)
        if not reply.is_deferred:
            self._made.append((context, reply))
        return reply

    def observe(self, outcome: Outcome) -> None:
        self._core.observe(outcome)
        found = LoggedOutcome(type=outcome.type, occur_time=outcome.occur_time, value_micros=outcome.value_micros)
        self._outcomes.setdefault((outcome.decision_id, max(outcome.step, 1)), []).append(found)

    def _train(self, context: Context) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            url = f"sqlite:///{scratch}/log.db"
            store = Store(url)
            try:
                write_log(store, (self._logged(*made) for made in self._made), [])
            finally:
                store.close()
            try:
                data = read_dataset(url, WINDOW, as_of=context.decide_time)
                fitted = fit(data, Hyperparameters(seed=self._seed), "own log", progress=lambda _: None)
            except LogUnusable:
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
