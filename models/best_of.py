"""The chance of each of some independent normal values to be the greatest: Thompson sampling without the sampling.

With values X_i ~ Normal(m_i, s_i), density f_i and distribution function F_i,

    P(X_i is the greatest) = integral of f_i(x) prod_{j != i} F_j(x) dx

A value with s_i = 0 is a point; only points at the greatest of them, m, count, each with an equal part of prod F_j(m) over the others,
and the integrals of the others begin at m.

Let L = max_i (m_i - REACH s_i). All values are below L with probability Phi(-REACH) at most, and a value with m_i + REACH s_i < L is the
greatest with about that, so both are left out; what is left is within REACH deviations of L. The integral is taken from L over panels that are
nowhere wider than PANEL times the least deviation of those that still vary there, by Gauss-Legendre. There are at most
2 REACH / PANEL + 2 panels for each value, whatever the deviations: a grid that adapts to all scales at once. What the greatest value has within a panel, all
chances together, is the growth of prod F_j over it; panels where that is NOTHING are left out. Places are counted from the mean of the
narrowest value left, within 2 REACH deviations of each other one, so that a deviation of 1e-12 beside one of 1e6 loses no digits.

Source: Russo, Van Roy, Kazerouni, Osband & Wen (2018), "A Tutorial on Thompson Sampling", for the probabilities; the quadrature is ours.
"""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

FloatArray = NDArray[np.float64]
REACH: Final = 7.0
PANEL: Final = 1.4
NOTHING: Final = 1e-14
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(10)
_POINTS, _WEIGHTS = (_POINTS + 1) / 2, _WEIGHTS / 2
_FAR: Final = 40.0
"""Deviations at which a normal density is 0 and its distribution function 1 in floating point."""
_ROOT: Final = float(np.sqrt(2 * np.pi))


def best_of(mean: FloatArray, deviation: FloatArray) -> FloatArray:
    """Return the probability of each value to be the greatest, shape (n,), summing to 1; exact to 1e-9.

    Parameters
    ----------
    mean : shape (n,), n >= 1, finite.
    deviation : shape (n,), finite, not negative; 0 is a point. Points that tie share alike.

    Raises
    ------
    ValueError: a deviation is negative, or a number is not finite.
    """
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation >= 0).all()):
        raise ValueError("means must be finite, deviations finite and not negative")
    chances = np.zeros(len(mean))
    begin = (mean - REACH * deviation).max()
    counting = np.flatnonzero(mean + REACH * deviation >= begin)
    origin = mean[counting[deviation[counting].argmin()]]
    place, spread = mean[counting] - origin, deviation[counting]
    start = (place - REACH * spread).max()
    is_point = spread == 0
    varying = counting[~is_point]
    place_of, spread_of = place[~is_point], spread[~is_point]
    greatest = counting[is_point & (place == start)]
    if len(greatest):
        chances[greatest] = ndtr((start - place_of) / spread_of).prod() / len(greatest)
    if len(varying):
        chances[varying] = _integrate(place_of, spread_of, start)
    return np.asarray(chances / chances.sum())


def _integrate(place: FloatArray, spread: FloatArray, start: float) -> FloatArray:
    """Return the integral from `start` on of each value's density times the distribution functions of the others, shape (n,)."""
    ends = place + REACH * spread
    order = ends.argsort()
    ends = ends[order]
    begins = np.concatenate([[start], ends[:-1]])
    narrowest = np.minimum.accumulate(spread[order][::-1])[::-1]
    counts = np.ceil((ends - begins) / (PANEL * narrowest)).astype(np.intp)
    width = np.repeat((ends - begins) / np.maximum(counts, 1), counts)
    number = np.arange(len(width)) - np.repeat(counts.cumsum() - counts, counts)
    left = np.repeat(begins, counts) + number * width
    edges = np.append(left, ends[-1])
    kept = np.diff(ndtr(np.clip((edges - place[:, None]) / spread[:, None], -_FAR, _FAR)).prod(axis=0)) > NOTHING
    left, width = left[kept], width[kept]
    x = (left[:, None] + width[:, None] * _POINTS).ravel()
    weight = (width[:, None] * _WEIGHTS).ravel()
    with np.errstate(over="ignore", under="ignore"):
        z = np.minimum((x - place[:, None]) / spread[:, None], _FAR)
        below = ndtr(z)
        reversed_hazard = np.exp(-z * z / 2) / below
        return np.asarray(reversed_hazard @ (weight * below.prod(axis=0)) / (_ROOT * spread))


def best_of_plainly(mean: FloatArray, deviation: FloatArray) -> FloatArray:
    """Do what `best_of` does one value at a time by `scipy.integrate.quad`, in units of its own deviation: the reference.

    The range is cut wherever any value begins, is at the middle of, or ends its rise, so that each piece is smooth.
    """
    from scipy.integrate import quad  # the reference alone needs it, and it takes as long to import as all the rest

    mass = np.max(mean[deviation == 0], initial=-np.inf)
    chances = np.zeros(len(mean))
    for i in range(len(mean)):
        others = [j for j in range(len(mean)) if j != i and deviation[j] > 0]

        def product(x: float, i: int = i, others: list[int] = others) -> float:
            """Return the product of the others' distribution functions at x deviations above the mean of i."""
            return float(np.prod([ndtr((mean[i] - mean[j] + x * deviation[i]) / deviation[j]) for j in others]))

        if deviation[i] == 0:
            ties = int(((mean == mass) & (deviation == 0)).sum())
            chances[i] = product(0.0) / ties if mean[i] == mass else 0.0
            continue
        cuts = [
            (mean[j] - mean[i] + z * deviation[j]) / deviation[i]
            for j in (*others, i)
            for z in (-9, -6, -3, 0, 3, 6, 9)
        ]
        least = max(-9.0, float(mass - mean[i]) / deviation[i])
        pieces = sorted({least, 9.0, *(cut for cut in cuts if least < cut < 9)})
        chances[i] = sum(
            quad(
                lambda x, product=product: np.exp(-x * x / 2) / _ROOT * product(x),
                left,
                right,
                epsabs=1e-13,
                epsrel=1e-11,
                full_output=1,
            )[0]
            for left, right in pairwise(pieces)
        )
    return chances
