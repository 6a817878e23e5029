"""Value of a policy from the log of another: IPS, SNIPS and DR with intervals, and the effective sample size.

With rewards r, logged propensities p, and q = P(logged action | context) under the policy judged, weights are w = q / p.

    IPS    mean(w r)                            unbiased where p > 0 wherever q > 0
    SNIPS  sum(w r) / sum(w)                    a little biased, far steadier
    DR     mean(v + w (r - m))                  m the model's reward of the logged action, v its value of the policy

Standard errors are of the linearised estimator, mean of its influence function squared over n; intervals are normal. The effective
sample size is (sum w)^2 / sum(w^2).
Sources: Horvitz & Thompson (1952); Swaminathan & Joachims (2015), "The Self-Normalized Estimator for Counterfactual Learning";
Dudik, Langford & Li (2011), "Doubly Robust Policy Evaluation and Learning".
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
