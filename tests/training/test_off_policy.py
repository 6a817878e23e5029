"""Off-policy estimators: small cases by hand, and coverage in worlds whose truth is known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import LogUnusable
from training.off_policy import Estimate, doubly_robust, effective_sample_size, ips, snips

FloatArray = NDArray[np.float64]

# Four decisions whose weights are 2, 0, 1 and 4.
REWARD = np.array([1.0, 5.0, 2.0, 3.0])
PROPENSITY = np.array([0.5, 0.5, 0.8, 0.25])
TARGET = np.array([1.0, 0.0, 0.8, 1.0])
MODELLED = np.array([1.5, 4.0, 2.0, 2.0])
MODELLED_VALUE = np.array([1.0, 2.0, 1.5, 2.5])

WORLDS, ROWS = 2000, 1500
LOWEST, HIGHEST = 0.93, 0.97
"""A true coverage of 0.95 is seen with a binomial error of 0.0049 in 2000 worlds: the bounds are four of them away."""


def test_ips_by_hand() -> None:
    """IPS is the mean of 2 x 1, 0 x 5, 1 x 2 and 4 x 3."""
    estimate = ips(REWARD, PROPENSITY, TARGET)

    assert estimate.value == pytest.approx(16 / 4)
    assert estimate.standard_error == pytest.approx(np.sqrt((2 - 4) ** 2 + 4**2 + (2 - 4) ** 2 + (12 - 4) ** 2) / 4)


def test_snips_by_hand() -> None:
    """SNIPS is 16 over the sum of the weights, 7."""
    estimate = snips(REWARD, PROPENSITY, TARGET)

    value = 16 / 7
    terms = np.array([2 * (1 - value), 0.0, 1 * (2 - value), 4 * (3 - value)])
    assert estimate.value == pytest.approx(value)
    assert estimate.standard_error == pytest.approx(np.sqrt((terms**2).sum()) / 7)


def test_doubly_robust_by_hand() -> None:
    """DR is the mean of the model's value, corrected by the weighted error of the model."""
    estimate = doubly_robust(REWARD, PROPENSITY, TARGET, MODELLED, MODELLED_VALUE)

    terms = np.array([1.0 + 2 * -0.5, 2.0 + 0, 1.5 + 1 * 0, 2.5 + 4 * 1])
    assert estimate.value == pytest.approx(terms.mean())
    assert estimate.standard_error == pytest.approx(terms.std() / 2)


def test_doubly_robust_with_no_model_is_ips() -> None:
    """A model that says nothing leaves IPS."""
    nothing = np.zeros(4)

    estimate = doubly_robust(REWARD, PROPENSITY, TARGET, nothing, nothing)

    assert estimate.value == ips(REWARD, PROPENSITY, TARGET).value
    assert estimate.standard_error == ips(REWARD, PROPENSITY, TARGET).standard_error


def test_snips_moves_with_the_reward() -> None:
    """A constant added to every reward is added to SNIPS, which IPS does not do; the interval's width stays."""
    before, after = snips(REWARD, PROPENSITY, TARGET), snips(REWARD + 100, PROPENSITY, TARGET)

    assert after.value - before.value == pytest.approx(100)
    assert after.standard_error == pytest.approx(before.standard_error)
    assert ips(REWARD + 100, PROPENSITY, TARGET).value - ips(REWARD, PROPENSITY, TARGET).value == pytest.approx(175)


def test_logging_policy_is_worth_what_was_logged() -> None:
    """Judging the logging policy itself gives the mean reward and all of the sample."""
    for estimate in (ips(REWARD, PROPENSITY, PROPENSITY), snips(REWARD, PROPENSITY, PROPENSITY)):
        assert estimate.value == pytest.approx(REWARD.mean())
        assert estimate.effective_sample_size == pytest.approx(4)


def test_effective_sample_size() -> None:
    """Weights 2, 0, 1 and 4 are as good as 49 / 21 equal ones; equal weights count in full, one weight counts one."""
    assert effective_sample_size(np.array([2.0, 0.0, 1.0, 4.0])) == pytest.approx(49 / 21)
    assert effective_sample_size(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_sample_size(np.array([0.0, 9.0, 0.0])) == pytest.approx(1)
    for estimate in (
        ips(REWARD, PROPENSITY, TARGET),
        snips(REWARD, PROPENSITY, TARGET),
        doubly_robust(REWARD, PROPENSITY, TARGET, MODELLED, MODELLED_VALUE),
    ):
        assert estimate.effective_sample_size == pytest.approx(49 / 21)


def test_interval_is_normal() -> None:
    """The 95 % interval is 1.96 standard errors to each side, the 90 % one 1.645."""
    estimate = Estimate(value=10.0, standard_error=2.0, effective_sample_size=5.0, influence=np.zeros(5))

    assert estimate.interval() == pytest.approx((10 - 3.919928, 10 + 3.919928), abs=1e-6)
    assert estimate.interval(0.90) == pytest.approx((10 - 3.289707, 10 + 3.289707), abs=1e-6)


def test_difference_of_a_policy_from_itself_is_certain() -> None:
    """A difference is paired row by row, so that a policy differs from itself by nothing at all."""
    estimate = snips(REWARD, PROPENSITY, TARGET)

    difference = estimate.minus(estimate)

    assert (difference.value, difference.standard_error) == (0.0, 0.0)
    assert difference.effective_sample_size == estimate.effective_sample_size


def test_difference_has_the_smaller_sample() -> None:
    """A difference is no better founded than the worse founded of the two."""
    wide, narrow = snips(REWARD, PROPENSITY, PROPENSITY), snips(REWARD, PROPENSITY, TARGET)

    assert wide.minus(narrow).effective_sample_size == narrow.effective_sample_size
    assert wide.minus(narrow).value == pytest.approx(-narrow.minus(wide).value)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.0001, np.nan, np.inf])
def test_impossible_propensity_is_refused(bad: float) -> None:
    """A logged propensity outside (0, 1] is refused by every estimator."""
    propensity = PROPENSITY.copy()
    propensity[2] = bad

    estimates: list[Callable[[], Estimate]] = [
        lambda: ips(REWARD, propensity, TARGET),
        lambda: snips(REWARD, propensity, TARGET),
        lambda: doubly_robust(REWARD, propensity, TARGET, MODELLED, MODELLED_VALUE),
    ]
    for estimate in estimates:
        with pytest.raises(LogUnusable, match=r"propensity is not in \(0, 1\]"):
            estimate()


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_impossible_target_is_refused(bad: float) -> None:
    """A target probability outside [0, 1] is refused."""
    target = TARGET.copy()
    target[0] = bad

    with pytest.raises(LogUnusable, match=r"target probability is not in \[0, 1\]"):
        snips(REWARD, PROPENSITY, target)


def test_lengths_that_do_not_match_are_refused() -> None:
    """Arrays of different lengths are refused with their lengths."""
    with pytest.raises(LogUnusable, match="4 rewards, 3 propensities and 4 targets"):
        ips(REWARD, PROPENSITY[:3], TARGET)


@pytest.mark.parametrize("rows", [0, 4])
def test_no_overlap_is_refused(rows: int) -> None:
    """A policy that never does what the log holds cannot be judged, nor can anything by an empty log."""
    with pytest.raises(LogUnusable, match="no overlap"):
        snips(REWARD[:rows], PROPENSITY[:rows], np.zeros(rows))


@dataclass(frozen=True)
class World:
    """Five kinds of context, four actions; what a context's action earns on average, and who does what how often."""

    mean: FloatArray
    logging: FloatArray
    target: FloatArray
    other: FloatArray
    model: FloatArray

    def value(self, policy: FloatArray) -> float:
        return float((policy * self.mean).sum(axis=1).mean())


def known_world() -> World:
    rng = np.random.default_rng(3)
    mean = rng.gamma(2.0, 1.0, size=(5, 4))
    logging = 0.4 / 4 + 0.6 * rng.dirichlet(np.full(4, 2.0), size=5)
    target = np.where(mean == mean.max(axis=1, keepdims=True), 0.85, 0.05)
    return World(
        mean=mean, logging=logging, target=target, other=np.full((5, 4), 0.25), model=mean + rng.normal(size=(5, 4))
    )


@dataclass(frozen=True)
class Log:
    """One log of the known world, with the probabilities of its actions under both policies and two models' rewards."""

    reward: FloatArray
    propensity: FloatArray
    target: FloatArray
    other: FloatArray
    modelled: FloatArray
    modelled_value: FloatArray
    true_mean: FloatArray
    true_value: FloatArray


@pytest.fixture(scope="module")
def logs() -> list[Log]:
    """2000 logs of the known world."""
    world, rng = known_world(), np.random.default_rng(4)
    context = rng.integers(5, size=(WORLDS, ROWS))
    above = rng.random((WORLDS, ROWS, 1)) > np.cumsum(world.logging, axis=1)[context][..., :3]
    action = above.sum(axis=2)
    arrays = (
        rng.exponential(world.mean[context, action]),
        world.logging[context, action],
        world.target[context, action],
        world.other[context, action],
        world.model[context, action],
        (world.target * world.model).sum(axis=1)[context],
        world.mean[context, action],
        (world.target * world.mean).sum(axis=1)[context],
    )
    return [Log(*rows) for rows in zip(*arrays, strict=True)]


def judge(name: str, log: Log) -> Estimate:
    if name == "doubly_robust":
        return doubly_robust(log.reward, log.propensity, log.target, log.modelled, log.modelled_value)
    estimate = ips if name == "ips" else snips
    return estimate(log.reward, log.propensity, log.target)


def share_covered(estimates: list[Estimate], truth: float) -> float:
    bounds = np.array([estimate.interval() for estimate in estimates])
    return float(np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])))


@pytest.mark.parametrize("name", ["ips", "snips", "doubly_robust"])
def test_intervals_cover_the_truth(name: str, logs: list[Log]) -> None:
    """Of 2000 worlds with good overlap, the 95 % interval holds the true value in 93 to 97 %, and estimates centre on it."""
    world = known_world()
    truth = world.value(world.target)

    estimates = [judge(name, log) for log in logs]

    values = np.array([estimate.value for estimate in estimates])
    assert min(e.effective_sample_size for e in estimates) > 0.15 * ROWS
    assert LOWEST <= share_covered(estimates, truth) <= HIGHEST
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(WORLDS)
    assert np.mean([e.standard_error for e in estimates]) == pytest.approx(values.std(), rel=0.07)


def test_intervals_of_differences_cover_the_truth(logs: list[Log]) -> None:
    """The interval of a paired difference holds the true one in 93 to 97 %, and is narrower than that of two separate logs."""
    world = known_world()
    truth = world.value(world.target) - world.value(world.other)

    pairs = [
        (snips(log.reward, log.propensity, log.target), snips(log.reward, log.propensity, log.other)) for log in logs
    ]
    differences = [first.minus(second) for first, second in pairs]

    assert LOWEST <= share_covered(differences, truth) <= HIGHEST
    separate = [np.hypot(first.standard_error, second.standard_error) for first, second in pairs]
    assert np.mean([d.standard_error for d in differences]) < np.mean(separate)


def test_a_good_model_narrows_the_interval(logs: list[Log]) -> None:
    """Doubly robust estimates with the true model have less error than IPS, and less than with a wrong model."""
    log = logs[0]

    robust = doubly_robust(log.reward, log.propensity, log.target, log.true_mean, log.true_value)

    assert robust.standard_error < 0.9 * judge("ips", log).standard_error
    assert robust.standard_error < judge("doubly_robust", log).standard_error
