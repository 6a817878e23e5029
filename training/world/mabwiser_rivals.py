"""MABWiser's linear bandits as rivals: a ridge regression of the reward for each channel and for no send.

LinUCB takes the offer of the greatest upper confidence bound x'b + alpha sqrt(x' A^-1 x), LinTS that of the greatest draw from N(b, alpha^2 A^-1).
Each offer is judged on features of its own, with an intercept. Until it has learned once it chooses evenly.

Source: Li et al. (2010), "A Contextual-Bandit Approach to Personalized News Article Recommendation"; Agrawal & Goyal (2013), "Thompson
Sampling for Contextual Bandits with Linear Payoffs".
"""

from collections.abc import Mapping, Sequence

import numpy as np
from mabwiser.mab import MAB, LearningPolicy

from models.context import Context
from models.features import NO_SEND, Facts
from training.world.people import CHANNELS
from training.world.rivals import Encoding, FloatArray, Lesson, Offer, context_values, encoding_of, offer_values


class MabWiser:
    """One of its linear policies; `parts` is into how many equal shares numbers are parted besides."""

    def __init__(self, name: str, policy: LearningPolicy, parts: int = 5, unit: float = 100.0) -> None:
        self.name = f"MABWiser {name}"
        self._bandit = MAB(arms=[NO_SEND, *CHANNELS], learning_policy=policy, seed=1)
        self._encoding = Encoding(())
        self._columns: dict[str, int] = {}
        self._parts, self._unit = parts, unit

    def propensities(self, context: Context, offers: Sequence[Offer]) -> FloatArray:
        if not self._columns:
            return np.full(len(offers), 1 / len(offers))
        expectations = self._bandit.predict_expectations(self._matrix(self._rows(context, offers)))
        if len(offers) == 1:
            expectations = [expectations]
        own = [row[offer.action.channel] for row, offer in zip(expectations, offers, strict=True)]
        return np.asarray(np.eye(len(offers))[int(np.argmax(own))])

    def learn(self, lessons: Sequence[Lesson]) -> None:
        is_first = not self._columns
        if is_first:
            self._encoding = encoding_of(lessons, self._parts)
        decisions = [lesson.decision for lesson in lessons]
        rows = [row for decision in decisions for row in self._rows(decision.context, [decision.offer])]
        if is_first:
            self._columns = {name: place for place, name in enumerate(sorted({name for row in rows for name in row}))}
        arms = np.array([decision.offer.action.channel for decision in decisions])
        rewards = np.array([lesson.reward / self._unit for lesson in lessons])
        (self._bandit.fit if is_first else self._bandit.partial_fit)(arms, rewards, self._matrix(rows))

    def _rows(self, context: Context, offers: Sequence[Offer]) -> list[dict[str, float]]:
        """Return the terms of each offer."""
        shared, facts = self._encoding.terms(context_values(context)), Facts.of(context)
        return [{**shared, **self._encoding.terms(offer_values(facts, offer))} for offer in offers]

    def _matrix(self, rows: Sequence[Mapping[str, float]]) -> FloatArray:
        """Return rows of terms as a matrix, the last column of ones; terms that the first lessons did not have are left out."""
        found = np.zeros((len(rows), len(self._columns) + 1))
        found[:, -1] = 1.0
        for place, row in enumerate(rows):
            for name, value in row.items():
                if name in self._columns:
                    found[place, self._columns[name]] = value
        return found
