"""Fitting the linear part of a stage: a regression with a logit or a log link whose weights are shrunk by groups.

Logit: the logistic regression of a label. Log: a Poisson regression with exposure e, whose likelihood of 0 or 1 events within a cumulative
hazard e exp(score) is that of proportional hazards. Each group of weights (the numbers, the categories of one column, the channels' own
weights of each of these) has a normal prior of mean 0 and of a precision that is found from the data: by turns the weights are those of
greatest posterior density, and

    precision of group j = (n_j - precision x sum of the posterior variances + 2 a) / (sum of the squares of its weights + 2 b),

MacKay's step of type-II maximum likelihood with a Laplace approximation, with a Gamma(a, b) prior of precisions. It is all but flat in their logs,
since what kind of message it is, or through which channel it went, is seldom nothing, and a hundred events may fail to insist on it; only that of the channels' own weights
of columns leans to great precisions: they are many times as many, and most say nothing. So a column that says nothing is shrunk away, and one that does keeps its
say however few the events. Source: MacKay (1992), "Bayesian Interpolation"; Tipping (2001), "Sparse Bayesian Learning".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from models.features import Column
from models.stage import Design, Scaling, linear_scores

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.intp]
Link = Literal["logit", "log"]
_ROUNDS = 12
_NEWTON_STEPS = 6
_A, _A_OF_OWN, _B = 0.025, 0.5, 0.0005
_OWN_CONSTANTS, _OWN_REST = 1000, 1001
"""Groups of the channels' own weights."""
_TINY = 1e-300
_LEAST_RATE = 1e-3
"""At which the fit of what comes on top begins, where no more events are seen than would come anyway."""
_FREE = 1e-4
"""Precision of intercepts and of the extra columns: all but free."""
_FIRST = 20.0
"""Precision that every group begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearFit:
    """Weights, shape (1 + channels, width + extras), of all rows used; scores of all rows; and scores by the fit of the earlier part."""

    weights: FloatArray
    scores: FloatArray
    earlier_scores: FloatArray


def find_scaling(columns: Sequence[Column], matrix: FloatArray) -> Scaling:
    """Return how the number columns of these rows are scaled."""
    logs = np.sign(matrix) * np.log1p(np.abs(matrix))
    known = ~np.isnan(logs)
    count = np.maximum(known.sum(axis=0), 1)
    means = np.where(known, logs, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, logs - means, 0.0) ** 2).sum(axis=0) / count)
    has_missing = (~known).any(axis=0) & known.any(axis=0)
    return Scaling(
        means=tuple(map(float, means)),
        deviations=tuple(map(float, np.where(spread > 1e-9, spread, 1.0))),
        has_missing=tuple(bool(x) for x in has_missing),
    )


def loss(
    link: Link, scores: FloatArray, label: FloatArray, exposure: FloatArray, anyway: FloatArray | None = None
) -> float:
    """Return the mean negative log likelihood, up to a constant."""
    return float(np.mean(losses(link, scores, label, exposure, anyway)))


def losses(
    link: Link, scores: FloatArray, label: FloatArray, exposure: FloatArray, anyway: FloatArray | None = None
) -> FloatArray:
    """Return the negative log likelihood of each row, up to a constant; all shapes (n,). `anyway` are chances of an event without what is scored."""
    if anyway is not None:
        none = np.log1p(-anyway) - np.logaddexp(0, scores)
        return np.asarray(-np.where(label > 0, np.log(np.maximum(-np.expm1(none), _TINY)), none))
    if link == "logit":
        return np.asarray(np.logaddexp(0, scores) - label * scores)
    return np.asarray(exposure * np.exp(np.minimum(scores, 30.0)) - label * scores)


def fit_linear(
    design: Design,
    matrix: FloatArray,
    label: FloatArray,
    used: BoolArray,
    is_later: BoolArray,
    link: Link,
    exposure: FloatArray | None = None,
    extra: FloatArray | None = None,
    offset: FloatArray | None = None,
    begin: FloatArray | None = None,
    only: BoolArray | None = None,
    anyway: FloatArray | None = None,
) -> LinearFit:
    """Fit the linear part on the rows used; arrays have shape (n,), `matrix` (n, columns).

    `extra`, shape (n, e), are more columns of f, whose weights for all channels are free. `offset` is added to the scores. Weights for all
    channels are drawn towards `begin`, shape (width,), by default 0; where `only`, of the same shape, is false they are 0. With `anyway`, shape (n,), events of the link logit happen
    anyway with these chances, and scores are logits of what comes on top: P(event) = anyway + (1 - anyway) logistic(score).
    """
    base, codes = design.base(matrix), design.channel_codes(matrix)
    begin = np.zeros(design.width) if begin is None else begin
    if only is not None:
        base, begin = np.where(only, base, 0.0), np.where(only, begin, 0.0)
    groups = design.groups()
    if extra is not None:
        base = np.hstack([base, extra])
        groups = np.concatenate([groups, np.full(extra.shape[1], -1)])
    exposure = np.ones(len(label)) if exposure is None else exposure
    offset = (np.zeros(len(label)) if offset is None else offset) + base[:, : design.width] @ begin

    def solve(rows: BoolArray) -> FloatArray:
        problem = _Problem(
            base=base[rows],
            codes=codes[rows],
            label=label[rows],
            exposure=exposure[rows],
            offset=offset[rows],
            link=link,
            groups=groups,
            channels=len(design.channels),
            anyway=None if anyway is None else anyway[rows],
        )
        return problem.solve()

    final, earlier = solve(used), solve(used & ~is_later)
    weights = final.copy()
    weights[0, : design.width] += begin
    return LinearFit(
        weights=weights,
        scores=linear_scores(final, base, codes) + offset,
        earlier_scores=linear_scores(earlier, base, codes) + offset,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """One regression. `groups` names the group of each column of `base`, -1 for one whose weight for all is free."""

    base: FloatArray
    codes: IntArray
    label: FloatArray
    exposure: FloatArray
    offset: FloatArray
    link: Link
    groups: IntArray
    channels: int
    anyway: FloatArray | None = None

    def solve(self) -> FloatArray:
        width = self.base.shape[1]
        rows_of = {int(c): np.flatnonzero(self.codes == c) for c in np.unique(self.codes[self.codes >= 0])}
        blocks = [None, *sorted(rows_of)]
        own_groups = np.where(self.groups < 0, _OWN_CONSTANTS, _OWN_REST)
        group = np.concatenate([self.groups, *[own_groups] * len(rows_of)])
        free = group < 0
        precision = np.where(free, _FREE, _FIRST)
        weights = np.zeros(len(group))
        weights[0] = self._level()
        for _ in range(_ROUNDS):
            weights, spread = self._newton(weights, precision, rows_of)
            for j in np.unique(group[~free]):
                mine = group == j
                known = max(float(mine.sum() - np.sum(precision[mine] * spread[mine])), 0.0)
                a = _A_OF_OWN if j == _OWN_REST else _A
                precision[mine] = np.clip((known + 2 * a) / (float(np.sum(weights[mine] ** 2)) + 2 * _B), 0.1, 1e5)
        found = np.zeros((1 + self.channels, width))
        for place, code in enumerate(blocks):
            found[0 if code is None else 1 + code] = weights[place * width : (place + 1) * width]
        return found

    def _level(self) -> float:
        if self.link == "logit":
            anyway = 0.0 if self.anyway is None else float(self.anyway.mean())
            rate = float(
                np.clip((self.label.mean() - anyway) / (1 - anyway), _LEAST_RATE if anyway else 1e-6, 1 - 1e-6)
            )
            return float(np.log(rate / (1 - rate)))
        return float(np.log((self.label.sum() + 0.5) / (self.exposure.sum() + 1e-12)))

    def _newton(
        self, weights: FloatArray, precision: FloatArray, rows_of: dict[int, IntArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Return the weights of greatest posterior density from these on, and their posterior variances."""
        value = self._loss(weights, precision, rows_of)
        factor = None
        for _ in range(_NEWTON_STEPS):
            gradient, hessian = self._curvature(weights, precision, rows_of)
            factor = cho_factor(hessian, lower=True)
            step = cho_solve(factor, gradient)
            size = 1.0
            while size > 1e-3:
                tried = weights - size * step
                found = self._loss(tried, precision, rows_of)
                if found <= value:
                    break
                size /= 2
            if size <= 1e-3 or value - found < 1e-6 * max(1.0, abs(value)):
                break
            weights, value = tried, found
        assert factor is not None  # at least one step was made
        return weights, np.diag(cho_solve(factor, np.eye(len(weights)))).copy()

    def _scores(self, weights: FloatArray, rows_of: dict[int, IntArray]) -> FloatArray:
        width = self.base.shape[1]
        scores = self.offset + self.base @ weights[:width]
        for place, (_, rows) in enumerate(sorted(rows_of.items()), start=1):
            scores[rows] += self.base[rows] @ weights[place * width : (place + 1) * width]
        return scores

    def _loss(self, weights: FloatArray, precision: FloatArray, rows_of: dict[int, IntArray]) -> float:
        scores = self._scores(weights, rows_of)
        return len(scores) * loss(self.link, scores, self.label, self.exposure, self.anyway) + 0.5 * float(
            np.sum(precision * weights**2)
        )

    def _curvature(
        self, weights: FloatArray, precision: FloatArray, rows_of: dict[int, IntArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Return the gradient and the Hessian, with `anyway` the expected one, whose blocks are those of the single channels."""
        width = self.base.shape[1]
        scores = self._scores(weights, rows_of)
        if self.link == "logit":
            mean = 1 / (1 + np.exp(-np.clip(scores, -40, 40)))
            slope = mean * (1 - mean)
            residual = mean - self.label
            if self.anyway is not None:
                event = self.anyway + (1 - self.anyway) * mean
                residual = (event - self.label) * mean / event
                slope = slope * (1 - self.anyway) * mean / event
        else:
            mean = self.exposure * np.exp(np.minimum(scores, 30.0))
            slope, residual = mean, mean - self.label
        gradient = precision * weights
        gradient[:width] += self.base.T @ residual
        hessian = np.diag(precision)
        rest = np.ones(len(scores), dtype=bool)
        for place, (_, rows) in enumerate(sorted(rows_of.items()), start=1):
            mine = slice(place * width, (place + 1) * width)
            part = self.base[rows]
            block = (part * slope[rows, None]).T @ part
            gradient[mine] += part.T @ residual[rows]
            hessian[:width, :width] += block
            hessian[mine, mine] += block
            hessian[:width, mine] += block
            hessian[mine, :width] += block
            rest[rows] = False
        if rest.any():
            part = self.base[rest]
            hessian[:width, :width] += (part * slope[rest, None]).T @ part
        return gradient, hessian
