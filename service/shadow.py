"""Shadow mode: a challenger bundle decides beside the champion on live traffic, and nothing of it is ever sent, reserved or kept.

Calls leave their decisions in a queue that never makes them wait: one that finds it full is counted and forgotten. One thread takes them out, lets the challenger decide the same context,
and rests after each for so long that it takes no more than its share of a core. It has no store to write to.

What is summed for each pair of bundles, over decisions with something to choose:

    agreement      P(both would take the same action) at best, sum_a min(p_champion(a), p_challenger(a)); 1 where the distributions are the same
    same action    whether the challenger drew the action that was served, by the same number
    difference     sum_a (p_challenger(a) - p_champion(a)) v(a), with v the plan values of the champion, and again those of the challenger

Each bundle believes its own choices to be the better ones, so one of the two differences flatters the challenger and the other the champion; what is true is for a log to say
(`python -m training evaluate`). Where one leaves out a paid channel that the other considers, both are asked again with nothing left out for its price, so that every action has both values; one that a
bundle expects no order of is worth minus its price to it.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from models.actions import ActionTable
from models.bundle import Bundle
from models.context import Context, Mode
from models.decide import Decision, Distribution, Evaluation, decide, evaluate
from models.experiments import rules_under
from models.features import Action
from models.rules import Rules
from service.bundles import BundleHolder
from service.log import get_logger

_log = get_logger(__name__)
FloatArray = NDArray[np.float64]
_EVERYTHING = 1e9
"""An optimism under which no paid channel is left out for its price."""
_NICE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What the comparisons of one champion with one challenger add up to; money in micros."""

    count: int = 0
    same: int = 0
    agreement: float = 0.0
    by_champion: float = 0.0
    """Expected value of the challenger's distribution less that of the champion's, as the champion values actions."""
    by_champion_squared: float = 0.0
    by_challenger: float = 0.0
    by_challenger_squared: float = 0.0
    seconds: float = 0.0
    """Of the challenger's decisions."""
    most_seconds: float = 0.0

    def __add__(self, other: "Sums") -> "Sums":
        summed = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Sums(**summed | {"most_seconds": max(self.most_seconds, other.most_seconds)})

    def mean(self, name: str) -> float:
        """Return the mean of what is summed under a name, 0 where nothing was."""
        return float(getattr(self, name)) / max(self.count, 1)

    def error(self, name: str) -> float:
        """Return the standard error of the mean difference under a name, `by_champion` or `by_challenger`."""
        variance = self.mean(f"{name}_squared") - self.mean(name) ** 2
        return float(np.sqrt(max(variance, 0.0) / max(self.count, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How a challenger does beside a champion, since both were there and the process began."""

    champion: str
    challenger: str
    sums: Sums
    dropped: int
    """Decisions that found the queue full, of any pair."""
    failed: int
    """Decisions that the challenger could not score, of any pair."""


class Shadow:
    """Compares a challenger with the decisions that it is told of. `tell` may be called from any thread, and never waits."""

    def __init__(
        self,
        challenger: BundleHolder,
        champion: BundleHolder,
        rules: Rules,
        *,
        size: int = 256,
        share: float = 0.25,
        log_seconds: float = 300.0,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.challenger = challenger
        self._champion = champion
        self._rules = rules
        self._share, self._log_seconds, self._timer = share, log_seconds, timer
        self._queue: queue.Queue[tuple[Decision, Bundle, Bundle]] = queue.Queue(size)
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, str], Sums] = {}
        self._pair = ("", "")
        self._dropped = self._failed = 0
        self._logged_seconds = timer()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to compare what is told."""
        self._thread = threading.Thread(target=self._run_behind, name="shadow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; what is still in the queue is forgotten, what was compared since the last line is logged."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._say()

    def tell(self, decisions: Sequence[Decision]) -> None:
        """Leave decisions that were answered to be compared: LIVE ones that had something to choose from by the champion's values."""
        champion, challenger = self._champion.current, self.challenger.current
        if champion is None or challenger is None:
            return
        for decision in decisions:
            choice = decision.choice
            is_live = decision.context.mode is Mode.LIVE and not decision.context.message.is_owed
            is_own = choice.bundle_version == champion.version and not choice.degraded
            if not is_live or not is_own or decision.distribution is None:
                continue
            try:
                self._queue.put_nowait((decision, champion, challenger))
            except queue.Full:
                with self._lock:
                    self._dropped += 1

    def compared(self) -> Compared | None:
        """Return how the present challenger does beside the present champion, None where one of them is missing."""
        champion, challenger = self._champion.current, self.challenger.current
        if champion is None or challenger is None:
            return None
        with self._lock:
            sums = self._sums.get((champion.version, challenger.version), Sums())
            return Compared(
                champion=champion.version,
                challenger=challenger.version,
                sums=sums,
                dropped=self._dropped,
                failed=self._failed,
            )

    def _run_behind(self) -> None:
        with suppress(OSError, AttributeError):  # only Linux has priorities of threads
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        self._run()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                entry = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            began = self._timer()
            self.compare(*entry)
            now = self._timer()
            if now - self._logged_seconds >= self._log_seconds:
                self._logged_seconds = now
                self._say()
            self._stop.wait((now - began) * (1 / self._share - 1))

    def compare(self, decision: Decision, champion: Bundle, challenger: Bundle) -> None:
        """Let the challenger decide what was decided, and add how the two differ."""
        try:
            found = compare(decision, self._rules, champion, challenger, self._timer)
        except Exception as error:  # whatever the challenger does, the next decision is compared
            _log.warning("shadow failed", challenger=challenger.version, kind=type(error).__name__, error=str(error))
            found = None
        with self._lock:
            if found is None:
                self._failed += 1
                return
            pair = (champion.version, challenger.version)
            self._sums[pair] = self._sums.get(pair, Sums()) + found

    def _say(self) -> None:
        """Write what was summed as a log line."""
        found = self.compared()
        if found is None:
            return
        sums = found.sums
        _log.info(
            "shadow",
            champion=found.champion,
            challenger=found.challenger,
            decisions=sums.count,
            same_action=round(sums.mean("same"), 4),
            agreement=round(sums.mean("agreement"), 4),
            difference_by_champion=round(sums.mean("by_champion") / 1e6, 6),
            difference_by_challenger=round(sums.mean("by_challenger") / 1e6, 6),
            mean_ms=round(1000 * sums.mean("seconds"), 3),
            most_ms=round(1000 * sums.most_seconds, 3),
            dropped=found.dropped,
            failed=found.failed,
        )


def compare(
    decision: Decision, rules: Rules, champion: Bundle, challenger: Bundle, timer: Callable[[], float]
) -> Sums | None:
    """Compare one decision with what a challenger decides in the same context; None where the challenger cannot score it.

    Corrections in the context are of the champion, so that the challenger goes without.
    """
    rules = rules_under(rules, decision.context.experiments)
    own = replace(decision.context, factors={})
    began = timer()
    other = decide(own, rules, challenger)
    seconds = timer() - began
    served = decision.distribution
    if other.choice.degraded or other.distribution is None or served is None:
        return None
    actions = list(dict.fromkeys([*served.table.actions, *other.distribution.table.actions]))
    p, q = _spread(served, actions), _spread(other.distribution, actions)
    tables = served.table, other.distribution.table
    cost = _costs(tables)
    if set(tables[0].actions) != set(tables[1].actions):
        tables = _whole(decision.context, rules, champion), _whole(own, rules, challenger)
    by_champion, by_challenger = (float((q - p) @ _values(table, actions, cost)) for table in tables)
    return Sums(
        count=1,
        same=int(other.choice.action == decision.choice.action),
        agreement=float(np.minimum(p, q).sum()),
        by_champion=by_champion,
        by_champion_squared=by_champion**2,
        by_challenger=by_challenger,
        by_challenger_squared=by_challenger**2,
        seconds=seconds,
        most_seconds=seconds,
    )


def _spread(found: Distribution, actions: Sequence[Action]) -> FloatArray:
    """Return the probability of each action, 0 of those that a distribution lacks."""
    known = dict(zip(found.table.actions, found.probabilities, strict=True))
    return np.array([float(known.get(action, 0.0)) for action in actions])


def _costs(tables: Iterable[ActionTable]) -> dict[Action, float]:
    """Return the price of each action of these tables, with the shadow price of its budget."""
    return {
        action: float(price * (1 + shadow))
        for table in tables
        for action, price, shadow in zip(table.actions, table.price_micros, table.shadow_price, strict=True)
    }


def _values(table: ActionTable, actions: Sequence[Action], cost: Mapping[Action, float]) -> FloatArray:
    known = dict(zip(table.actions, table.plan_micros, strict=True))
    return np.array([float(known.get(action, -cost[action])) for action in actions])


def _whole(context: Context, rules: Rules, bundle: Bundle) -> ActionTable:
    """Return the actions of a context with their values by a bundle, none left out that it expects any order of."""
    generous = replace(rules, policy=replace(rules.policy, paid_optimism=_EVERYTHING))
    found = evaluate(context, generous, bundle)
    assert isinstance(found, Evaluation)  # there was something to choose from
    return found.distribution.table
