"""The fit: the same bytes from the same data, a planted effect found, later decisions kept out, and the measures themselves."""

import itertools
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.bundle import Bundle, load_bundle
from models.errors import LogUnusable
from models.features import Action
from tests.training.examples import (
    BASE,
    NOW,
    PUSH_ON_YOUNG,
    SMS_ON_OLD,
    WORLD_CHANNELS,
    context_at,
    world,
    write_fitted,
)
from training.dataset import Dataset
from training.fit import Fitted, auc, calibration_error, fit, observed_uplift, reliability, uplift_error
from training.grow import Hyperparameters, calibrate

FloatArray = NDArray[np.float64]
DECISIONS = 30_000
SMALL = Hyperparameters(trees=40)


def quiet(_text: str) -> None:
    """Say nothing."""


def fit_quietly(data: Dataset, hyper: Hyperparameters = SMALL) -> Fitted:
    return fit(data, hyper, "world", quiet)


def write_fit(fitted: Fitted, folder: Path) -> Bundle:
    write_fitted(folder, "world", fitted)
    return load_bundle(folder)


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def learned() -> Fitted:
    """What was learned of 30,000 decisions of the world."""
    return fit_quietly(world(DECISIONS), Hyperparameters())


@pytest.fixture(scope="module")
def bundle(learned: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_fit(learned, tmp_path_factory.mktemp("world"))


def predicted(bundle: Bundle, young: float) -> dict[str, float]:
    """Mean P(order) by channel, as serving would have it, over customers whose other feature varies."""
    actions = [Action(channel=name, send_time=None if name == "none" else NOW) for name in WORLD_CHANNELS]
    noise = np.random.default_rng(5).normal(size=200)
    contexts = [context_at(NOW, "r", features={"young": young, "noise": float(x)}) for x in noise]
    p = np.array([bundle.estimate(context, actions, {}).p_response for context in contexts])
    return dict(zip(WORLD_CHANNELS, p.mean(axis=0).tolist(), strict=True))


_SCRIPT = """
import sys
from pathlib import Path
from tests.training.examples import world, write_fitted
from training.fit import fit
from training.grow import Hyperparameters
fitted = fit(world(2000), Hyperparameters(trees=40), "world")
write_fitted(Path(sys.argv[1]), "world", fitted)
"""


def test_same_data_and_seed_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    """Two processes that fit the same data with the same seed write the same bundle; another seed fits another model."""
    runs = [
        subprocess.Popen([sys.executable, "-c", _SCRIPT, str(tmp_path / name)], cwd=root) for name in ("one", "two")
    ]
    other = fit_quietly(world(2000), replace(SMALL, seed=1))
    assert [run.wait() for run in runs] == [0, 0]

    one, two = bytes_in(tmp_path / "one"), bytes_in(tmp_path / "two")

    assert one == two
    assert one["response.txt"] != other.model_text.encode()


def test_planted_effect_is_found(bundle: Bundle) -> None:
    """Push is worth it for the young and SMS for the others, and the uplift is within 0.05 of the planted one.

    A difference of two cells of 5,000 decisions has a standard error of 0.008; to the bound of five of them another 0.01 is given for
    the calibration and for what regularisation takes.
    """
    young, old = predicted(bundle, 1.0), predicted(bundle, 0.0)

    assert young["push"] - young["none"] == pytest.approx(PUSH_ON_YOUNG, abs=0.05)
    assert young["sms"] - young["none"] == pytest.approx(0.0, abs=0.05)
    assert old["sms"] - old["none"] == pytest.approx(SMS_ON_OLD, abs=0.05)
    assert old["push"] - old["none"] == pytest.approx(0.0, abs=0.05)
    assert young["none"] == pytest.approx(BASE, abs=0.03)


def test_planted_effect_is_found_by_the_funnel(tmp_path: Path) -> None:
    """Where the log says who saw a message, the funnel is fitted too; whichever of the two serves finds the planted effect."""
    fitted = fit_quietly(world(DECISIONS, is_seen_logged=True), Hyperparameters())

    bundle = write_fit(fitted, tmp_path)

    assert fitted.metrics["funnel.scale"] == pytest.approx(1.0, abs=0.15)
    assert abs(fitted.metrics["later.logloss_of_funnel"] - fitted.metrics["later.logloss_of_one_model"]) < 0.005
    young, old = predicted(bundle, 1.0), predicted(bundle, 0.0)
    assert young["push"] - young["none"] == pytest.approx(PUSH_ON_YOUNG, abs=0.05)
    assert old["sms"] - old["none"] == pytest.approx(SMS_ON_OLD, abs=0.05)
    assert old["push"] - old["none"] == pytest.approx(0.0, abs=0.05)


def test_predictions_are_calibrated_on_later_decisions(learned: Fitted) -> None:
    """On decisions the model did not see, predictions and rates differ by no more than chance explains.

    A tenth of the 7,500 later decisions has a rate with a standard error of up to 0.018 at 0.37, 0.012 on average, of which the mean
    distance is 0.8 times: 0.0096; the bound is twice that.
    """
    error = calibration_error(learned.later.response, learned.p_later)

    assert error == learned.metrics["later.calibration_error"]
    assert error < 0.0192


def test_observed_uplift_is_the_planted_one(learned: Fitted) -> None:
    """The uplift that the log itself shows is the planted one within four standard errors of 0.011."""
    assert learned.metrics["later.uplift.push"] == pytest.approx(PUSH_ON_YOUNG / 2, abs=0.044)
    assert learned.metrics["later.uplift.sms"] == pytest.approx(SMS_ON_OLD / 2, abs=0.044)
    assert "later.uplift.none" not in learned.metrics


def test_observed_uplift_weighs_by_propensity() -> None:
    """Whom the logging policy favoured counts less: the uplift is that of the whole population."""
    data = world(8).take(np.ones(8, dtype=bool))
    data = replace(
        data,
        channel=np.array(["push", "push", "push", "push", "none", "none", "none", "none"]),
        propensity=np.array([0.75, 0.75, 0.75, 0.25, 0.25, 0.25, 0.25, 0.75]),
        response=np.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
    )

    uplift = observed_uplift(data, "push")

    assert uplift == pytest.approx(4 / 8 - 4 / (12 + 4 / 3))
    sent = 3 * (4 / 3 * 0.5) ** 2 + (4 * 0.5) ** 2
    none = (4 * 0.7) ** 2 + 2 * (4 * 0.3) ** 2 + (4 / 3 * 0.3) ** 2
    assert uplift_error(data, "push") == pytest.approx(np.sqrt(sent / 8**2 + none / (12 + 4 / 3) ** 2))


def test_error_of_the_observed_uplift_is_that_of_repeated_logs() -> None:
    """The standard error is the deviation of the uplift over 400 logs, within a tenth."""
    rng = np.random.default_rng(3)
    data = world(600)
    found, errors = [], []
    for _ in range(400):
        log = replace(data, response=(rng.random(600) < 0.2).astype(float))
        found.append(observed_uplift(log, "push"))
        errors.append(uplift_error(log, "push"))

    assert np.mean(errors) == pytest.approx(np.std([value for value in found if value is not None]), rel=0.1)


@pytest.mark.parametrize("channel", ["none", "viber"])
def test_no_uplift_without_both_sides(channel: str) -> None:
    """No send has no uplift over itself, nor has a channel that was never used."""
    assert observed_uplift(world(300), channel) is None


def test_noise_is_not_looked_at(learned: Fitted) -> None:
    """What has no effect has little of the gain, what has an effect most of it."""
    total = sum(learned.importance.values())

    assert set(learned.importance) == {"channel", "x.young", "x.noise"}
    assert learned.importance["x.noise"] < 0.25 * total


def test_unsubscribe_rates_are_drawn_towards_the_mean(learned: Fitted) -> None:
    """Each sent channel has a rate near the true 2 %; no send has none."""
    rates = learned.description.unsubscribe_rates

    assert set(rates) == {"push", "sms"}
    assert all(0.015 < rate < 0.025 for rate in rates.values())


def test_unsubscribe_rates_by_hand() -> None:
    """A channel of few sends has mostly the rate of all: (its own + 200 x the overall rate) / (its sends + 200)."""
    data = world(1200)
    sent = np.flatnonzero(data.channel != "none")
    unsubscribed = np.zeros(1200)
    unsubscribed[sent[:40]] = 1.0
    data = replace(data, unsubscribed=unsubscribed)

    rates = fit_quietly(data).description.unsubscribe_rates

    for channel in ("push", "sms"):
        own = data.channel == channel
        expected = (unsubscribed[own].sum() + 200 * 40 / len(sent)) / (own.sum() + 200)
        assert rates[channel] == pytest.approx(expected)


def test_unsubscribe_rates_are_empty_where_nobody_left() -> None:
    """Where nobody unsubscribed the rules file's rates hold."""
    data = replace(world(600), unsubscribed=np.zeros(600))

    assert fit_quietly(data).description.unsubscribe_rates == {}


def test_later_decisions_are_the_latest_quarter(learned: Fitted) -> None:
    """What is measured on is the latest quarter, whole."""
    data = world(DECISIONS)

    assert np.array_equal(learned.later.decide_time, data.decide_time[22_500:])
    assert len(learned.p_later) == 7_500


def test_later_decisions_are_not_learned_from() -> None:
    """A model that learns by heart knows nothing of later decisions: on noise its AUC there is one half.

    The standard error of an AUC of 1,000 decisions, half of each kind, is 0.018; on decisions it saw the AUC would be near 1.
    """
    rng = np.random.default_rng(1)
    data = world(4000)
    noise = replace(
        data,
        matrix=np.column_stack([data.matrix[:, 0], rng.normal(size=(4000, 2))]),
        response=rng.integers(2, size=4000).astype(np.float64),
    )
    by_heart = Hyperparameters(
        trees=30, leaves=63, min_rows_in_leaf=1, l2=0.0, learning_rate=0.5, row_share=1.0, patience=30
    )

    fitted = fit_quietly(noise, by_heart)

    assert auc(fitted.later.response, fitted.p_later) == pytest.approx(0.5, abs=4 * 0.018)


def test_decisions_of_one_moment_stay_together() -> None:
    """A campaign that was decided at one moment is never split between the earlier and the later part."""
    data = world(1200)
    data = replace(data, decide_time=np.repeat(data.decide_time[:3], 400))

    later = fit_quietly(data).later

    assert set(later.decide_time.tolist()) == {int(data.decide_time[-1])}
    assert len(later) == 400


def test_log_whose_later_part_would_be_all_of_it() -> None:
    """Where most decisions are of the first moment, the later part is what came after it."""
    data = world(1200)
    moments = np.where(np.arange(1200) < 1000, data.decide_time[0], data.decide_time[1])

    later = fit_quietly(replace(data, decide_time=moments)).later

    assert len(later) == 200


def test_log_of_one_moment_is_split_at_random() -> None:
    """A log without dates is learned from all the same; about a quarter of it is kept for measuring."""
    data = world(2000)
    data = replace(data, decide_time=np.full(2000, data.decide_time[0]))

    fitted, again = fit_quietly(data), fit_quietly(data)

    assert len(fitted.later) == pytest.approx(500, abs=4 * np.sqrt(2000 * 0.25 * 0.75))
    assert np.array_equal(fitted.later.matrix, again.later.matrix)


@pytest.mark.parametrize("kind", [0.0, 1.0])
def test_later_part_of_one_kind_is_survived(kind: float) -> None:
    """Where nobody, or everybody, ordered in the later part, it calibrates nothing, and what cannot be measured is missing."""
    data = world(2000)
    response = data.response.copy()
    response[1500:] = kind

    fitted = fit_quietly(replace(data, response=response))

    assert (fitted.description.calibration_slope, fitted.description.calibration_intercept) == (1.0, 0.0)
    assert np.isnan(fitted.metrics["later.auc"])
    assert fitted.metrics["later.logloss_of_rate"] == pytest.approx(0.0, abs=1e-9)


UNLEARNABLE = {
    "too few": (world(150), "150 decisions are too few"),
    "nobody ordered": (replace(world(600), response=np.zeros(600)), "0 of 600 decisions were followed by an order"),
    "everybody ordered": (replace(world(600), response=np.ones(600)), "600 of 600 decisions were followed by an order"),
    "no baseline": (world(900).take(world(900).channel != "none"), "is a no send"),
    "earlier part too small": (world(210), "157 decisions are too few"),
}


@pytest.mark.parametrize("case", UNLEARNABLE)
def test_what_cannot_teach_is_refused(case: str) -> None:
    """Data that cannot teach are refused with what is missing."""
    data, message = UNLEARNABLE[case]

    with pytest.raises(LogUnusable, match=message):
        fit_quietly(data)


def test_golden_rows_hold_missing_and_extreme_values(learned: Fitted) -> None:
    """What a load checks are rows of the log, and rows of missing, unseen and extreme values."""
    rows = learned.golden_rows

    assert rows.shape == (68, 3)
    assert np.isnan(rows).all(axis=1).any()
    assert np.abs(rows[~np.isnan(rows)]).max() == 1e30


def test_description_says_what_it_was_trained_on(learned: Fitted) -> None:
    """A bundle names its log, the digest of its data, their number and days, and every hyperparameter."""
    told = learned.description.trained_on

    assert told["log"] == "world"
    assert told["digest"] == "world-30000-0"
    assert (told["decisions"], told["first"], told["last"]) == ("30000", "2023-11-14", "2027-04-17")
    assert told.items() >= {name: str(value) for name, value in asdict(Hyperparameters()).items()}.items()


def test_calibrate_finds_slope_and_intercept() -> None:
    """Responses drawn with a known slope and intercept give these back, within four standard errors of the maximum likelihood."""
    rng = np.random.default_rng(2)
    raw = rng.normal(-1.0, 1.2, size=20_000)
    p = 1 / (1 + np.exp(-(1.7 * raw + 0.4)))
    response = (rng.random(20_000) < p).astype(np.float64)
    design = np.column_stack([raw, np.ones_like(raw)])
    errors = np.sqrt(np.diag(np.linalg.inv((design * (p * (1 - p))[:, None]).T @ design)))

    slope, intercept = calibrate(raw, response)

    assert slope == pytest.approx(1.7, abs=4 * errors[0])
    assert intercept == pytest.approx(0.4, abs=4 * errors[1])


def test_calibrate_leaves_what_is_calibrated() -> None:
    """Scores that are right already are left as they are, within four standard errors."""
    rng = np.random.default_rng(3)
    raw = rng.normal(-2.0, 1.0, size=20_000)
    response = (rng.random(20_000) < 1 / (1 + np.exp(-raw))).astype(np.float64)

    slope, intercept = calibrate(raw, response)

    assert slope == pytest.approx(1.0, abs=0.12)
    assert intercept == pytest.approx(0.0, abs=0.25)


UNTELLING: dict[str, tuple[FloatArray, FloatArray]] = {
    "nobody": (np.linspace(-4, 0, 300), np.zeros(300)),
    "everybody": (np.linspace(-4, 0, 300), np.ones(300)),
    "the best few": (np.linspace(-4, 0, 300), (np.arange(300) >= 297).astype(np.float64)),
    "the worst half": (np.linspace(-4, 0, 300), (np.arange(300) < 150).astype(np.float64)),
    "all scored alike": (np.zeros(300), (np.arange(300) % 2).astype(np.float64)),
}


@pytest.mark.parametrize("case", UNTELLING)
def test_calibrate_takes_the_raw_score_where_it_cannot_tell(case: str) -> None:
    """One-sided, separable and reversed responses do not make certainties, nor turn the ranking round."""
    assert calibrate(*UNTELLING[case]) == (1.0, 0.0)


def random_case(seed: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    return rng.integers(2, size=37).astype(np.float64), rng.integers(8, size=37) / 8


@pytest.mark.parametrize("seed", range(5))
def test_auc_against_all_pairs(seed: int) -> None:
    """AUC is the share of pairs of a responder and a non-responder that are in order, ties counting half."""
    y, p = random_case(seed)

    pairs = list(itertools.product(p[y == 1], p[y == 0]))

    expected = sum(1.0 if high > low else 0.5 if high == low else 0.0 for high, low in pairs) / len(pairs)
    assert auc(y, p) == pytest.approx(expected)


def test_auc_of_one_kind_is_unknown() -> None:
    """Without both kinds there is no order to judge."""
    assert np.isnan(auc(np.zeros(5), np.arange(5.0)))
    assert np.isnan(auc(np.ones(5), np.arange(5.0)))


@pytest.mark.parametrize("seed", range(3))
def test_reliability_against_counting(seed: int) -> None:
    """Bins hold all rows in order of prediction, as equal in count as can be, with their mean and rate."""
    y, p = random_case(seed)
    ranked = sorted(zip(p.tolist(), range(37), strict=True))

    bins = reliability(y, p, 10)

    assert [count for _, _, count in bins] == [4] * 7 + [3] * 3
    begin = 0
    for mean, rate, count in bins:
        rows = [index for _, index in ranked[begin : begin + count]]
        assert mean == pytest.approx(sum(p[rows]) / count)
        assert rate == pytest.approx(sum(y[rows]) / count)
        begin += count
    distances = [abs(mean - rate) * count for mean, rate, count in bins]
    assert calibration_error(y, p, 10) == pytest.approx(sum(distances) / 37)


def test_reliability_of_fewer_rows_than_bins() -> None:
    """Three rows make three bins; none is empty."""
    assert reliability(np.array([0.0, 1.0, 1.0]), np.array([0.3, 0.1, 0.2])) == [
        (0.1, 1.0, 1),
        (0.2, 1.0, 1),
        (0.3, 0.0, 1),
    ]
