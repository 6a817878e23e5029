"""Finding the typical weeks of customers: a mixture of multinomials over the hours of the week, by expectation maximisation.

Each customer counts with the active hours that serving knew at their latest decision. Some of them are held out to choose how much a
customer's own week counts.
"""

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from models.rhythm import WEEK, Rhythms, RhythmTypes, count_week, hours_of_week, smooth_week
from training.dataset import Dataset

FloatArray = NDArray[np.float64]
_TYPES = 10
_LEAST_HOURS = 2000
"""Active hours that a type must have on average, so that its week is known to within some percent."""
_ROUNDS = 60
_OWN_WEIGHTS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0)
_FLAT = 0.02
"""What every hour of a type has at least, of a mean of 1."""
_HELD_OUT = 4
_MOST_CUSTOMERS = 50_000
"""Of more, every second, third and so on teaches what typical weeks are."""
_ALL = slice(None)


def count_activity(data: Dataset, rows: slice = _ALL) -> FloatArray:
    """Return active hours by hour of the local week as known at each decision, of all or of some, shape (n, 168)."""
    active, zones = data.active_hours[rows], data.time_zone[rows]
    count = np.array([len(hours) for hours in active], dtype=np.intp)
    hours = np.fromiter(chain.from_iterable(active), dtype=np.intp, count=int(count.sum()))
    of_zone, place = np.repeat(zones, count), np.repeat(np.arange(len(active)), count)
    for name in np.unique(zones):
        mine = of_zone == name
        hours[mine] = hours_of_week(hours[mine], str(name))
    found = np.bincount(place * WEEK + hours, minlength=len(active) * WEEK)
    return found.reshape(len(active), WEEK).astype(np.float64)


def fit_rhythms(data: Dataset, seed: int) -> RhythmTypes:
    """Fit the typical weeks to what each customer did before their latest decision; where nobody did anything, none to tell apart."""
    latest = {customer: place for place, customer in enumerate(data.customer)}
    places = [i for i in latest.values() if data.active_hours[i]]
    places = places[:: -(-len(places) // _MOST_CUSTOMERS) or 1]
    kept, held = np.zeros((len(places), WEEK)), np.zeros((len(places), WEEK))
    rng = np.random.default_rng(seed)
    for row, place in enumerate(places):
        hours, zone = data.active_hours[place], data.time_zone[place]
        out = rng.integers(_HELD_OUT, size=len(hours)) == 0
        kept[row] = count_week([h for h, o in zip(hours, out, strict=True) if not o], zone)
        held[row] = count_week([h for h, o in zip(hours, out, strict=True) if o], zone)
    number = int(np.clip((kept.sum() + held.sum()) // _LEAST_HOURS, 1, _TYPES))
    trial = _mixture(kept, number, rng)
    losses = {}
    for weight in _OWN_WEIGHTS:
        week = Rhythms(_types(*trial, weight)).of(kept)
        losses[weight] = -float((held * np.log(week)).sum())
    best = min(reversed(_OWN_WEIGHTS), key=lambda weight: losses[weight])
    return _types(*_mixture(kept + held, number, rng), best)


def _types(shares: FloatArray, weeks: FloatArray, own_weight: float) -> RhythmTypes:
    return RhythmTypes(
        shares=tuple(float(round(x, 6)) for x in shares),
        weeks=tuple(tuple(float(round(x, 5)) for x in week) for week in weeks),
        own_weight=own_weight,
    )


def _mixture(counts: FloatArray, number: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return shares and weeks of the types."""
    overall = smooth_week(counts.sum(axis=0) + _FLAT)
    shares, weeks = np.full(number, 1 / number), np.tile(overall / overall.mean(), (number, 1))
    if not counts.any() or number == 1:
        return shares, np.maximum(weeks, _FLAT)
    guess = rng.dirichlet(np.full(number, 0.3), size=len(counts))
    for _ in range(_ROUNDS):
        mass = smooth_week(guess.T @ counts) + overall[None, :] / overall.sum() * 50
        weeks = np.maximum(mass / mass.mean(axis=1, keepdims=True), _FLAT)
        weeks /= weeks.mean(axis=1, keepdims=True)
        shares = np.maximum(guess.mean(axis=0), 1e-4)
        shares /= shares.sum()
        score = np.log(shares) + counts @ np.log(weeks).T
        guess = np.exp(score - score.max(axis=1, keepdims=True))
        guess /= guess.sum(axis=1, keepdims=True)
    return shares, weeks
