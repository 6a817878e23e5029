"""Value of a policy from the log of another: IPS, SNIPS, DM and DR with intervals, and whether the log overlaps with it enough.

With rewards r, logged propensities p, and q = P(logged action | context) under the policy judged, weights are w = q / p.

    IPS    mean(w r)                            unbiased where p > 0 wherever q > 0
    SNIPS  sum(w r) / sum(w)                    a little biased, far steadier
    DM     mean(v)                              v the model's value of the policy; as wrong as the model is, which its interval does not hold
    DR     mean(v + w (r - m))                  m the model's reward of the logged action

Standard errors are of the linearised estimator, mean of its influence function squared over n; intervals are normal. `bootstrap` draws
whole customers anew instead and takes percentiles. The effective sample size is (sum w)^2 / sum(w^2).
Sources: Horvitz & Thompson (1952); Swaminathan & Joachims (2015), "The Self-Normalized Estimator for Counterfactual Learning";
Dudik, Langford & Li (2011), "Doubly Robust Policy Evaluation and Learning"; Owen (2013), "Monte Carlo Theory, Methods and Examples", chapter 9, for
weights; Efron & Tibshirani (1993), "An Introduction to the Bootstrap".
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from models.errors import LogUnusable

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its standard error; `influence`, shape (n,), makes differences between policies paired."""

    value: float
    standard_error: float
    effective_sample_size: float
    influence: FloatArray = field(repr=False)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the normal interval of that coverage."""
        half = float(norm.ppf((1 + level) / 2)) * self.standard_error
        return self.value - half, self.value + half

    def minus(self, other: "Estimate") -> "Estimate":
        """Return this value less another, judged on the same log row by row."""
        influence = self.influence - other.influence
        return Estimate(
            value=self.value - other.value,
            standard_error=_standard_error(influence),
            effective_sample_size=min(self.effective_sample_size, other.effective_sample_size),
            influence=influence,
        )


def _standard_error(influence: FloatArray) -> float:
    return float(np.sqrt(np.mean(influence**2) / len(influence)))


def _weights(reward: FloatArray, propensity: FloatArray, target: FloatArray) -> FloatArray:
    if not len(reward) == len(propensity) == len(target):
        raise LogUnusable(
            f"{len(reward)} rewards, {len(propensity)} propensities and {len(target)} targets do not match"
        )
    if not np.all((propensity > 0) & (propensity <= 1)):
        raise LogUnusable("a logged propensity is not in (0, 1]; such a log cannot judge a policy")
    if not np.all((target >= 0) & (target <= 1)):
        raise LogUnusable("a target probability is not in [0, 1]")
    weights: FloatArray = target / propensity
    if not weights.any():
        raise LogUnusable("the policy judged never does what the log holds; there is no overlap")
    return weights


def effective_sample_size(weights: FloatArray) -> float:
    """Return (sum w)^2 / sum(w^2), the size of an unweighted log that would be as telling."""
    return float(weights.sum() ** 2 / (weights**2).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How far the log holds what the policy judged would do."""

    decisions: int
    effective_sample_size: float
    largest_share: float
    """Share of all weight that one decision has."""
    thin_share: float
    """Share of what the policy would do that the log hardly tried: through channels with a logged probability below THIN."""
    mean_weight: float
    """1 but for chance where propensities are right and nothing that the policy would do is missing from the log."""
    mean_weight_error: float
    """Its standard error."""
    effective_events: float
    """Of the effective sample, how many have what the estimate is learned from, by the rate of all: orders for totals, clicks or orders for increments."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Say what is not enough; nothing where a figure may be given."""
        found = []
        if self.effective_sample_size < LEAST_EFFECTIVE:
            found.append(
                f"effective sample size {self.effective_sample_size:.0f}, at least {LEAST_EFFECTIVE} are needed"
            )
        if self.effective_events < LEAST_EVENTS:
            found.append(f"{self.effective_events:.0f} effective events, at least {LEAST_EVENTS} are needed")
        if self.largest_share > LARGEST_SHARE:
            found.append(f"one decision has {self.largest_share:.1%} of the weight, at most {LARGEST_SHARE:.0%} may be")
        if self.thin_share > MOST_THIN:
            found.append(
                f"{self.thin_share:.1%} of what the policy would do has a logged probability below {THIN:g}, at most {MOST_THIN:.0%} may have"
            )
        if abs(self.mean_weight - 1) > max(OFF_WEIGHT, 4 * self.mean_weight_error):
            found.append(
                f"weights have a mean of {self.mean_weight:.2f} where it should be 1: propensities are wrong, or the log lacks what the policy would do"
            )
        return tuple(found)


THIN = 0.002
MOST_THIN = 0.05
LEAST_EFFECTIVE = 200
LEAST_EVENTS = 25
LARGEST_SHARE = 0.05
OFF_WEIGHT = 0.1


def find_overlap(weights: FloatArray, thin: FloatArray, events: NDArray[np.bool_]) -> Overlap:
    """Return the overlap of weights; arrays have shape (n,).

    `thin` is the share of the policy's probability that was hardly tried, `events` tells which decisions have what an estimate is learned from.
    """
    total = float(weights.sum())
    effective = effective_sample_size(weights) if total > 0 else 0.0
    return Overlap(
        decisions=len(weights),
        effective_sample_size=effective,
        effective_events=effective * float(events.mean()),
        largest_share=float(weights.max()) / total if total > 0 else 1.0,
        thin_share=float(thin.mean()),
        mean_weight=float(weights.mean()),
        mean_weight_error=float(weights.std() / np.sqrt(len(weights))),
    )


def bootstrap(
    top: FloatArray,
    bottom: FloatArray,
    customer: NDArray[np.intp],
    rng: np.random.Generator,
    level: float = 0.95,
    draws: int = 1000,
) -> tuple[float, float]:
    """Return the percentile interval of sum(top) / sum(bottom), drawing whole customers anew.

    With top = w r and bottom = w it is SNIPS's, with bottom = 1 that of a mean. Arrays have shape (n,).
    """
    numbers = np.unique(customer, return_inverse=True)[1]
    count = int(numbers.max()) + 1
    tops, bottoms = np.bincount(numbers, top), np.bincount(numbers, bottom)
    ratios = np.empty(draws)
    for draw in range(draws):
        times = rng.multinomial(count, np.full(count, 1 / count))
        ratios[draw] = times @ tops / (times @ bottoms)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def direct_method(modelled_value: FloatArray) -> Estimate:
    """Estimate a policy's value as its model has it, shape (n,); nothing corrects the model, and the interval is of its contexts alone."""
    value = float(np.mean(modelled_value))
    influence = modelled_value - value
    return Estimate(
        value=value,
        standard_error=_standard_error(influence),
        effective_sample_size=float(len(modelled_value)),
        influence=influence,
    )


def ips(reward: FloatArray, propensity: FloatArray, target: FloatArray) -> Estimate:
    """Estimate a policy's value by inverse propensity scoring; arrays have shape (n,).

    Raises
    ------
    LogUnusable: a propensity is not in (0, 1], or there is no overlap.
    """
    weights = _weights(reward, propensity, target)
    value = float(np.mean(weights * reward))
    influence = weights * reward - value
    return Estimate(
        value=value,
        standard_error=_standard_error(influence),
        effective_sample_size=effective_sample_size(weights),
        influence=influence,
    )


def snips(reward: FloatArray, propensity: FloatArray, target: FloatArray) -> Estimate:
    """Estimate a policy's value by self-normalised inverse propensity scoring; arrays have shape (n,).

    Raises
    ------
    LogUnusable: a propensity is not in (0, 1], or there is no overlap.
    """
    weights = _weights(reward, propensity, target)
    value = float(np.sum(weights * reward) / np.sum(weights))
    influence = weights * (reward - value) / np.mean(weights)
    return Estimate(
        value=value,
        standard_error=_standard_error(influence),
        effective_sample_size=effective_sample_size(weights),
        influence=influence,
    )


def doubly_robust(
    reward: FloatArray, propensity: FloatArray, target: FloatArray, modelled: FloatArray, modelled_value: FloatArray
) -> Estimate:
    """Estimate a policy's value by the doubly robust estimator; arrays have shape (n,).

    `modelled` is the model's reward of the logged action, `modelled_value` its value of the policy in the same context. The model must
    not have seen the rewards judged.

    Raises
    ------
    LogUnusable: a propensity is not in (0, 1], or there is no overlap.
    """
    weights = _weights(reward, propensity, target)
    terms = modelled_value + weights * (reward - modelled)
    value = float(np.mean(terms))
    influence = terms - value
    return Estimate(
        value=value,
        standard_error=_standard_error(influence),
        effective_sample_size=effective_sample_size(weights),
        influence=influence,
    )
