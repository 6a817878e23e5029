"""Intervals and p-values that hold at every look at once, so that an experiment may be looked at daily and stopped at any look.

An asymptotic confidence sequence. With n customers of both variants together, a difference d with standard error s, and rho > 0,

    d +- s k(n),    k(n)^2 = 2 (n rho^2 + 1) / (n rho^2) * log(sqrt(n rho^2 + 1) / alpha)

holds the truth at all n at once with probability 1 - alpha or more, as n grows; a t-interval has k = 1.96 at one n fixed beforehand. Its dual
p-value is 1 / e with e = exp(x z^2 / (2 (x + 1))) / sqrt(x + 1), x = n rho^2, z = d / s: below alpha exactly where the interval leaves 0 out.

rho sets where the sequence is tightest. At alpha it is tightest near n = N* for rho^2 = (-2 log alpha + log(-2 log alpha + 1)) / N*; at alpha = 0.05 it is
then 1.55 times as wide as the t-interval at N*, and less than 1.7 times from N* / 3 to 15 N*. N* must be chosen before the data are seen.

It is a sequence of means, so it holds of whatever is a mean of one value a customer: means, ratios by their linearised values, and both
after CUPED. Customers must be in the order in which they count.

Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2021), "Time-uniform central limit theory and asymptotic confidence sequences",
arXiv:2103.06476: Theorem 2.2 for the interval, its appendix on tuning for rho.
"""

import math

TIGHTEST_AT = 10_000
"""N*: customers of both variants together at which the interval is tightest."""


def _intrinsic(count: int, alpha: float, tightest_at: int) -> float:
    """Return n rho^2."""
    tail = -2 * math.log(alpha)
    return count * (tail + math.log(tail + 1)) / tightest_at


def critical_value(count: int, alpha: float, tightest_at: int = TIGHTEST_AT) -> float:
    """Return k(n): how many standard errors the always-valid interval reaches to each side."""
    x = _intrinsic(count, alpha, tightest_at)
    return math.sqrt(2 * (x + 1) / x * (0.5 * math.log(x + 1) - math.log(alpha)))


def p_value(z: float, count: int, alpha: float, tightest_at: int = TIGHTEST_AT) -> float:
    """Return the always-valid p-value of z = difference / standard error; `alpha` only says for which level rho was chosen."""
    x = _intrinsic(count, alpha, tightest_at)
    return math.exp(min(0.0, 0.5 * math.log(x + 1) - x * z * z / (2 * (x + 1))))
