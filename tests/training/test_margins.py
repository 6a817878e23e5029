"""Margins of a caused order: a planted spend per customer, a planted scale, and what is refused."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from models.context import FeatureValue
from models.errors import LogUnusable
from training.margins import MarginModel, fit_margins

FloatArray = NDArray[np.float64]
DECISIONS = 20_000
RICH, POOR = 60.0, 20.0
"""Mean basket of the two kinds of customer, in units of the currency."""
BASE, ADDED = 0.3, 0.3
"""P(order) without a send, and what the social lead adds."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """Randomised decisions as `fit_margins` takes them; arrays have shape (n,)."""

    features: list[dict[str, FeatureValue]]
    lead: NDArray[np.str_]
    propensity: FloatArray
    spend: FloatArray

    def fit(self, seed: int = 0) -> MarginModel:
        return fit_margins(self.features, self.lead, self.propensity, self.spend, "social", seed)


def make_log(decisions: int = DECISIONS, *, larger: float = 1.0, larger_of_poor: float | None = None) -> Log:
    """Make decisions of rich and poor customers; social adds orders, and makes every basket larger by a factor."""
    rng = np.random.default_rng(0)
    rich = rng.random(decisions) < 0.5
    lead = rng.choice(["none", "mobile", "social"], p=[0.3, 0.2, 0.5], size=decisions)
    ordered = rng.random(decisions) < BASE + ADDED * (lead == "social")
    basket = rng.gamma(4.0, np.where(rich, RICH, POOR) / 4) * np.where(
        lead == "social", np.where(rich, larger, larger_of_poor or larger), 1.0
    )
    shares = {"none": 0.3, "mobile": 0.2, "social": 0.5}
    return Log(
        features=[
            {"income": "high" if is_rich else "low", "age": float(age)}
            for is_rich, age in zip(rich, rng.integers(20, 60, size=decisions), strict=True)
        ],
        lead=lead,
        propensity=np.array([shares[str(name)] for name in lead]),
        spend=np.where(ordered, basket, 0.0),
    )


def margins_of(model: MarginModel) -> tuple[float, float]:
    """Margins of a rich and of a poor customer, over ages."""
    rich: list[dict[str, FeatureValue]] = [{"income": "high", "age": float(age)} for age in range(20, 60)]
    poor: list[dict[str, FeatureValue]] = [{"income": "low", "age": float(age)} for age in range(20, 60)]
    return float(model.predict(rich).mean()), float(model.predict(poor).mean())


def test_margins_are_the_planted_baskets() -> None:
    """Where a send brings orders and no larger baskets, kappa is one and a margin is the customer's mean basket.

    A basket has a standard deviation of half its mean, so the mean of 3,000 of them a standard error of 1 %. Kappa divides two
    differences of sums whose error is about 2 %; to four of them another 5 % is given for regularisation.
    """
    model = make_log().fit()

    rich, poor = margins_of(model)

    assert model.kappa == pytest.approx(1.0, abs=0.08)
    assert rich == pytest.approx(RICH, rel=0.13)
    assert poor == pytest.approx(POOR, rel=0.13)


def test_kappa_scales_to_the_gain() -> None:
    """Where a send also makes baskets of half more, one more responder is worth more than a basket, and margins say by how much.

    The gain in spend of a social send is (0.6 x 1.5 - 0.3) x basket = 0.6 baskets; a basket of the widest channel, 1.5, earned by
    0.3 more responders is 0.45. So kappa is 0.6 / 0.45.
    """
    model = make_log(larger=1.5).fit()

    assert model.kappa == pytest.approx(0.6 / 0.45, rel=0.08)


def test_value_of_a_send_comes_out() -> None:
    """The margin times the uplift in orders is the gain in spend, in all: what the service multiplies is what is earned."""
    log = make_log(larger=1.5)
    model = log.fit()
    spend = np.minimum(log.spend, 200.0)
    social, none = log.lead == "social", log.lead == "none"

    gained = float(spend[social].mean() - spend[none].mean())

    rich = np.array([features["income"] == "high" for features in log.features])
    margins = model.predict(log.features)
    uplift = float((log.spend[social] > 0).mean() - (log.spend[none] > 0).mean())
    assert float(margins.mean()) * uplift == pytest.approx(gained, rel=0.08)
    assert margins[rich].mean() > 2 * margins[~rich].mean()


def test_margins_weigh_by_propensity() -> None:
    """Kappa is of all customers: sending mostly to the rich, with that in the propensities, does not change it.

    Social doubles the baskets of the rich alone, so that kappa is 1.43 of all customers but 1.27 of those who were sent to. Its error
    is about 2 %; 5 % are allowed.
    """
    even = make_log(2 * DECISIONS, larger=2.0, larger_of_poor=1.0)
    rich = np.array([features["income"] == "high" for features in even.features])
    kept_share = np.where((even.lead == "social") & ~rich, 0.4, 1.0)
    kept = np.random.default_rng(1).random(2 * DECISIONS) < kept_share
    skewed = Log(
        features=[features for features, is_kept in zip(even.features, kept, strict=True) if is_kept],
        lead=even.lead[kept],
        propensity=(even.propensity * kept_share)[kept],
        spend=even.spend[kept],
    )

    assert skewed.fit().kappa == pytest.approx(even.fit().kappa, rel=0.05)


def test_large_baskets_are_cut() -> None:
    """A few enormous baskets do not set everybody's margin."""
    log = make_log()
    spend = log.spend.copy()
    spend[np.flatnonzero(spend > 0)[:20]] = 1e6
    huge = Log(features=log.features, lead=log.lead, propensity=log.propensity, spend=spend)

    assert margins_of(huge.fit())[0] < 1.2 * RICH


def test_margins_are_never_negative_and_known_of_anybody() -> None:
    """Unseen categories and missing covariates have a margin too, of at least zero."""
    model = make_log(5000).fit()

    margins = model.predict([{}, {"income": "unheard of"}, {"age": 1e9}, {"other": 1.0}])

    assert np.all(np.isfinite(margins))
    assert np.all(margins > 0)


def test_same_log_gives_the_same_margins() -> None:
    """Margins follow from the log and the seed."""
    log = make_log(5000)

    assert np.array_equal(log.fit().predict(log.features), log.fit().predict(log.features))


def test_no_response_under_the_widest_channel_is_refused() -> None:
    """Where nobody ordered after the widest channel there is no basket to learn from."""
    log = make_log(2000)
    silent = Log(
        features=log.features,
        lead=log.lead,
        propensity=log.propensity,
        spend=np.where(log.lead == "social", 0.0, log.spend),
    )

    with pytest.raises(LogUnusable, match="no decision with a send through social was followed by an order"):
        silent.fit()


def test_log_without_no_send_is_refused() -> None:
    """Without decisions that sent nothing there is no gain to scale to."""
    log = make_log(2000)
    sent = log.lead != "none"
    forced = Log(
        features=[features for features, is_sent in zip(log.features, sent, strict=True) if is_sent],
        lead=log.lead[sent],
        propensity=log.propensity[sent],
        spend=log.spend[sent],
    )

    with pytest.raises(LogUnusable, match="no decision of the log is a no send"):
        forced.fit()


def test_channel_without_gain_is_refused() -> None:
    """Where the widest channel earns less than no send, margins cannot be scaled."""
    log = make_log(4000)
    harmful = np.where((log.lead == "social") & (np.arange(4000) % 3 > 0), 0.0, log.spend)

    with pytest.raises(LogUnusable, match="sending through social shows no gain over no send"):
        Log(features=log.features, lead=log.lead, propensity=log.propensity, spend=harmful).fit()
