"""Vowpal Wabbit's contextual bandits with action-dependent features, as rivals.

Costs are negative rewards in units of `unit` roubles, as its learning rates and explorers expect. Features of the context cross with the
action's channel. Explorers: squarecb (inverse-gap weighting), regcb (by confidence bounds on the cost), bag (votes of resampled
learners), epsilon-greedy.

Source: Bietti, Agarwal & Langford (2021), "A Contextual Bandit Bake-off"; Foster & Rakhlin (2020), "Beyond UCB" (SquareCB).
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from vowpalwabbit import Workspace

from models.context import Context, FeatureValue
from models.features import Facts
from training.world.rivals import Encoding, FloatArray, Lesson, Offer, context_values, encoding_of, offer_values

_LEAST_PROPENSITY = 1e-4
_NOT_IN_NAMES = str.maketrans({":": "_", "|": "_", " ": "_"})


class VowpalWabbit:
    """One of its explorers; `parts` is into how many equal shares numbers are parted besides."""

    def __init__(self, name: str, explorer: str, parts: int = 1, unit: float = 100.0) -> None:
        self.name = f"Vowpal Wabbit {name}"
        self._workspace = Workspace(f"--quiet --cb_explore_adf {explorer} -q ca --random_seed 1")
        self._encoding = Encoding(())
        self._is_scaled = False
        self._parts, self._unit = parts, unit

    def propensities(self, context: Context, offers: Sequence[Offer]) -> FloatArray:
        found = np.array(self._workspace.predict(self._lines(context, offers)), dtype=np.float64)
        return np.asarray(found / found.sum())

    def learn(self, lessons: Sequence[Lesson]) -> None:
        if not self._is_scaled:
            self._encoding, self._is_scaled = encoding_of(lessons, self._parts), True
        for lesson in lessons:
            decision = lesson.decision
            cost, propensity = -lesson.reward / self._unit, max(decision.propensity, _LEAST_PROPENSITY)
            lines = self._lines(decision.context, decision.offers)
            lines[1 + decision.place] = f"0:{cost:.6f}:{propensity:.6f} " + lines[1 + decision.place]
            self._workspace.learn(lines)

    def _lines(self, context: Context, offers: Sequence[Offer]) -> list[str]:
        """Return the example as text: a shared line of the context, then one of each offer."""
        lines, facts = [f"shared |c {self._terms(context_values(context))}"], Facts.of(context)
        for offer in offers:
            lines.append(f"|a {offer.action.channel} |t {self._terms(offer_values(facts, offer))}")
        return lines

    def _terms(self, values: Mapping[str, FeatureValue]) -> str:
        terms = self._encoding.terms(values)
        return " ".join(f"{_in_line(name)}:{value:.4f}" for name, value in terms.items())


@cache
def _in_line(name: str) -> str:
    return name.translate(_NOT_IN_NAMES)
