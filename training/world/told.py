"""What can be planned from what the service is told: the truth's law with each latent trait replaced by a guess from the features.

Guesses are LightGBM regressions on another population of the same make. A planner that knows the law and these guesses is no bound on what can be
learned (a customer's history tells more, and the law is not linear in the guesses), but it says how much of the oracle's value rests on
traits that nobody told.
"""

from dataclasses import replace

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from training.world.people import ORDINARY, Population, make_population

FloatArray = NDArray[np.float64]
_TEACHERS = 12_000
_TREES = 50
_PARAMETERS = {
    "objective": "regression",
    "learning_rate": 0.1,
    "num_leaves": 15,
    "min_data_in_leaf": 50,
    "num_threads": 1,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}
_FLOOR = 1e-3


def told_population(people: Population) -> Population:
    """Return the same customers with their latent traits as guessed from their features; what is told stays as it is."""
    teachers = make_population(_TEACHERS, people.seed + 1_000_003)
    known, wanted = _features(teachers), _features(people)
    data = lgb.Dataset(known, free_raw_data=False, params={"verbosity": -1})

    def guess(target: FloatArray) -> FloatArray:
        data.set_label(target)
        return np.asarray(lgb.train(_PARAMETERS, data, num_boost_round=_TREES).predict(wanted))

    def guess_each(targets: FloatArray) -> FloatArray:
        return np.column_stack([guess(column) for column in targets.T])

    return replace(
        people,
        kind=np.full(len(people), ORDINARY),
        attention=np.maximum(guess_each(teachers.attention), _FLOOR),
        interest=guess_each(teachers.interest),
        deal_seeking=guess(teachers.deal_seeking),
        organic=np.maximum(guess(teachers.organic), _FLOOR),
        annoyance=np.full(len(people), teachers.annoyance.mean()),
        rhythm=_rhythm_by_age(teachers)[people.age_band],
        is_weekend_mail=np.zeros(len(people), dtype=bool),
        deliverable=np.tile(teachers.deliverable.mean(axis=0), (len(people), 1)),
    )


def _features(people: Population) -> FloatArray:
    age = np.where(people.age_band < 0, np.nan, people.age_band)
    return np.column_stack(
        [
            people.sessions,
            people.opens,
            people.chats,
            people.orders,
            people.views,
            people.discount_share,
            people.tenure_days,
            age,
            people.stage,
            np.eye(4)[people.favourite],
            people.product_views,
            people.consent,
        ]
    )


def _rhythm_by_age(teachers: Population) -> FloatArray:
    """Return the mean week of each age band, (6, 168); the last, which -1 points to, is of those whose age is not known."""
    bands = [teachers.rhythm[teachers.age_band == band].mean(axis=0) for band in (*range(5), -1)]
    return np.array(bands)
