"""The linear part fitted: planted effects are found, columns that say nothing are shrunk away."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from models.features import Column
from models.stage import Design, linear_scores
from training.linear import LinearFit, Link, _Problem, find_scaling, fit_linear, loss

FloatArray = NDArray[np.float64]
CHANNELS = ("none", "push", "sms")
COLUMNS = (
    Column(name="channel", kind="category", categories=CHANNELS),
    Column(name="x", kind="number"),
    Column(name="city", kind="category", categories=tuple("abcdefgh")),
)
CITY = 2
N = 20_000


def rows(n: int = N, seed: int = 0) -> FloatArray:
    """Draw encoded rows: a channel, a number of about normal logs, and a city."""
    rng = np.random.default_rng(seed)
    x = np.sinh(rng.normal(size=n))
    return np.column_stack([rng.integers(1, 3, n), x, rng.integers(8, size=n)]).astype(np.float64)


def design_of(matrix: FloatArray) -> Design:
    return Design(COLUMNS, find_scaling(COLUMNS, matrix))


def fitted(
    matrix: FloatArray, label: FloatArray, link: Link = "logit", exposure: FloatArray | None = None
) -> LinearFit:
    """Fit on all rows, of which the last quarter is the later part."""
    n = len(matrix)
    is_later = np.arange(n) >= n * 3 // 4
    return fit_linear(design_of(matrix), matrix, label, np.ones(n, dtype=bool), is_later, link, exposure)


def draw_labels(scores: FloatArray, seed: int = 1) -> FloatArray:
    return (np.random.default_rng(seed).random(len(scores)) < expit(scores)).astype(np.float64)


def test_planted_logit_is_found_within_its_standard_error() -> None:
    """An intercept, a slope and a channel's own intercept come out within five standard errors, as n and the slope of the logit give them."""
    matrix = rows()
    base = design_of(matrix).base(matrix)
    is_sms = matrix[:, 0] == 2
    truth = -2.0 + 0.8 * base[:, 1] + 1.0 * is_sms

    found = fitted(matrix, draw_labels(truth))

    mean = expit(truth)
    information = np.column_stack([np.ones(N), base[:, 1], is_sms])
    error = np.sqrt(np.diag(np.linalg.inv((information * (mean * (1 - mean))[:, None]).T @ information)))
    assert found.weights[0, 1] + found.weights[2:, 1].mean() == pytest.approx(0.8, abs=5 * error[1] + 0.02)
    assert found.weights[3, 0] - found.weights[2, 0] == pytest.approx(1.0, abs=5 * error[2] + 0.02)
    assert np.sqrt(np.mean((found.scores - truth) ** 2)) < 5 * np.sqrt(len(found.weights[0]) / (N * 0.1))


def test_group_that_says_nothing_is_shrunk_away() -> None:
    """The cities of a label that does not know of them weigh a fraction of what an unshrunk fit gives them, while the slope stays."""
    matrix = rows()
    base = design_of(matrix).base(matrix)

    found = fitted(matrix, draw_labels(-2.0 + 0.8 * base[:, 1]))

    cities = found.weights[0, CITY : CITY + 8]
    noise = 1 / np.sqrt(N / 8 * expit(-2.0) * (1 - expit(-2.0)))
    assert np.sqrt(np.mean(cities**2)) < 0.4 * noise
    assert found.weights[0, 1] == pytest.approx(0.8, abs=0.15)


def test_weights_are_drawn_towards_where_they_begin() -> None:
    """Sixty rows that do not contradict a slope leave it where it begins; twenty thousand put it where they say, wherever it began."""

    def slope(n: int, begin: float) -> float:
        matrix = rows(n)
        design = design_of(matrix)
        label = draw_labels(-2.0 + 0.5 * design.base(matrix)[:, 1])
        first = np.where(np.arange(design.width) == 1, begin, 0.0)
        used, is_later = np.ones(n, dtype=bool), np.arange(n) >= n * 3 // 4
        return float(fit_linear(design, matrix, label, used, is_later, "logit", begin=first).weights[0, 1])

    assert slope(60, 0.5) == pytest.approx(0.5, abs=0.15)
    assert abs(slope(60, 0.0)) < 0.15
    assert slope(N, 1.5) == pytest.approx(slope(N, 0.0), abs=0.05)


def test_columns_that_are_left_out_weigh_nothing() -> None:
    """Where only some columns are used the others have no weight, for all channels or for one, and scores are those of the weights."""
    matrix = rows()
    design = design_of(matrix)
    base = design.base(matrix)
    only = np.array([name != "city" for name in design.names(COLUMNS)])
    label = draw_labels(-2.0 + 0.8 * base[:, 1] + (matrix[:, 2] == 3))
    used, is_later = np.ones(N, dtype=bool), np.arange(N) >= N * 3 // 4

    found = fit_linear(design, matrix, label, used, is_later, "logit", only=only)

    assert not found.weights[:, ~only].any()
    assert only.sum() == 2
    np.testing.assert_allclose(found.scores, linear_scores(found.weights, base, design.channel_codes(matrix)))


def test_group_that_says_something_keeps_its_say() -> None:
    """Cities that differ by a standard deviation of 1 keep at least nine tenths of it."""
    matrix = rows()
    effects = np.array([-1.5, -1.0, -0.5, 0.0, 0.0, 0.5, 1.0, 1.5])

    found = fitted(matrix, draw_labels(-1.0 + effects[matrix[:, 2].astype(int)]))

    slope = np.polyfit(effects, found.weights[0, CITY : CITY + 8], 1)[0]
    assert 0.9 < slope < 1.1


@pytest.mark.parametrize("seed", range(4))
def test_hundred_events_keep_what_kinds_differ_by(seed: int) -> None:
    """Six kinds whose odds differ as much as those of an abandoned cart and a newsletter keep half of that by some hundred events, beside forty columns of noise."""
    rng = np.random.default_rng(seed)
    effects, n = np.array([-1.5, -1.0, -0.5, 0.5, 1.0, 1.5]), 900
    columns = (
        Column(name="channel", kind="category", categories=CHANNELS),
        Column(name="kind", kind="category", categories=tuple("abcdef")),
        *(Column(name=f"noise_{i}", kind="number") for i in range(40)),
    )
    kind = rng.integers(6, size=n)
    matrix = np.column_stack([rng.integers(1, 3, n), kind, rng.normal(size=(n, 40))]).astype(np.float64)
    design = Design(columns, find_scaling(columns, matrix))
    label = draw_labels(-2.5 + effects[kind], seed)

    found = fit_linear(design, matrix, label, np.ones(n, dtype=bool), np.arange(n) >= n * 3 // 4, "logit")

    of_kind = [name == "kind" for name in design.names(columns)]
    assert 80 < label.sum() < 160
    assert np.polyfit(effects, found.weights[0, of_kind], 1)[0] > 0.5


def test_what_comes_on_top_is_found_beside_what_comes_anyway() -> None:
    """Of events that half of the rows have anyway in one case out of five, the scores are of the rest: the same for both halves, within five standard errors."""
    matrix, rng = rows(), np.random.default_rng(9)
    anyway = np.where(rng.random(N) < 0.5, 0.2, 0.01)
    label = (rng.random(N) < anyway + (1 - anyway) * 0.1).astype(np.float64)
    used, is_later = np.ones(N, dtype=bool), np.arange(N) >= N * 3 // 4

    found = fit_linear(design_of(matrix), matrix, label, used, is_later, "logit", anyway=anyway)

    error = 1 / np.sqrt(N * 0.1**2 * 0.9 * (0.5 / 0.28 * 0.8 + 0.5 / 0.109 * 0.99))
    assert found.scores.mean() == pytest.approx(np.log(0.1 / 0.9), abs=5 * error)
    assert found.scores[anyway > 0.1].mean() == pytest.approx(found.scores[anyway < 0.1].mean(), abs=0.02)


def test_fewer_events_than_come_anyway_leave_next_to_nothing_on_top() -> None:
    """Where fewer events are seen than would have come anyway, what comes on top is believed rare, and every number is finite."""
    matrix = rows(2_000)
    label = draw_labels(np.full(2_000, -3.0))
    used, is_later = np.ones(2_000, dtype=bool), np.arange(2_000) >= 1_500

    found = fit_linear(
        design_of(matrix), matrix, label, used, is_later, "logit", anyway=np.full(2_000, 2 * label.mean())
    )

    assert np.all(np.isfinite(found.weights))
    assert expit(found.scores).max() < 0.01


def test_log_link_finds_planted_hazards_whatever_the_exposure() -> None:
    """With events drawn as 1 - exp(-exposure x hazard), the hazards of two channels come out within five standard errors."""
    matrix, rng = rows(), np.random.default_rng(3)
    hazard = np.where(matrix[:, 0] == 2, 0.30, 0.05)
    exposure = rng.uniform(0.1, 4.0, N)
    waited = rng.exponential(1 / hazard)
    label, at_risk = (waited < exposure).astype(np.float64), np.minimum(waited, exposure)

    found = fitted(matrix, label, "log", at_risk)

    for channel, truth in ((1, 0.05), (2, 0.30)):
        mine = matrix[:, 0] == channel
        error = 1 / np.sqrt(label[mine].sum())
        assert found.scores[mine].mean() == pytest.approx(np.log(truth), abs=5 * error)


@pytest.mark.parametrize("link", ["logit", "log"])
def test_gradient_is_that_of_the_loss(link: Link) -> None:
    """The gradient and the Hessian agree with finite differences of the penalised loss."""
    matrix = rows(300)
    design, rng = design_of(matrix), np.random.default_rng(5)
    base, codes = design.base(matrix), design.channel_codes(matrix)
    codes[:20] = -1
    problem = _Problem(
        base=base,
        codes=codes,
        label=(rng.random(300) < 0.4).astype(np.float64),
        exposure=rng.uniform(0.5, 2.0, 300),
        offset=rng.normal(size=300),
        link=link,
        groups=design.groups(),
        channels=3,
    )
    rows_of = {c: np.flatnonzero(codes == c) for c in (1, 2)}
    weights, precision = rng.normal(size=3 * design.width) / 3, rng.uniform(0.1, 3.0, 3 * design.width)

    gradient, hessian = problem._curvature(weights, precision, rows_of)

    step = 1e-5 * np.eye(len(weights))
    slopes = [
        (problem._loss(weights + s, precision, rows_of) - problem._loss(weights - s, precision, rows_of)) / 2e-5
        for s in step
    ]
    bends = [
        (
            problem._curvature(weights + s, precision, rows_of)[0]
            - problem._curvature(weights - s, precision, rows_of)[0]
        )
        / 2e-5
        for s in step
    ]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(hessian, bends, rtol=1e-5, atol=1e-4)


def test_gradient_beside_what_comes_anyway_is_that_of_the_loss() -> None:
    """With chances of an event anyway the gradient agrees with finite differences, and the expected Hessian is positive definite."""
    matrix = rows(300)
    design, rng = design_of(matrix), np.random.default_rng(5)
    base, codes = design.base(matrix), design.channel_codes(matrix)
    problem = _Problem(
        base=base,
        codes=codes,
        label=(rng.random(300) < 0.4).astype(np.float64),
        exposure=np.ones(300),
        offset=rng.normal(size=300),
        link="logit",
        groups=design.groups(),
        channels=3,
        anyway=rng.uniform(0.0, 0.5, 300),
    )
    rows_of = {c: np.flatnonzero(codes == c) for c in (1, 2)}
    weights, precision = rng.normal(size=3 * design.width) / 3, rng.uniform(0.1, 3.0, 3 * design.width)

    gradient, hessian = problem._curvature(weights, precision, rows_of)

    step = 1e-5 * np.eye(len(weights))
    slopes = [
        (problem._loss(weights + s, precision, rows_of) - problem._loss(weights - s, precision, rows_of)) / 2e-5
        for s in step
    ]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-4)
    assert np.linalg.eigvalsh(hessian).min() >= precision.min() - 1e-9


def test_channel_without_rows_has_no_weights_of_its_own() -> None:
    """Of a channel that the rows used do not hold, nothing is learned."""
    matrix = rows(2_000)

    found = fitted(matrix, draw_labels(np.full(2_000, -1.0)))

    assert not found.weights[1].any()


def test_earlier_scores_do_not_know_of_the_later_part() -> None:
    """Turning the later labels round changes the final scores and leaves those of the earlier fit."""
    matrix = rows(2_000)
    label = draw_labels(np.full(2_000, -1.0))
    turned = np.where(np.arange(2_000) >= 1_500, 1 - label, label)

    one, other = fitted(matrix, label), fitted(matrix, turned)

    np.testing.assert_array_equal(one.earlier_scores, other.earlier_scores)
    assert np.abs(one.scores - other.scores).max() > 0.1


def test_extra_columns_and_offset_are_of_the_scores() -> None:
    """A known offset is added, and an extra column's weight is found on top of it."""
    matrix, rng = rows(), np.random.default_rng(6)
    extra = rng.normal(size=N)
    used, later = np.ones(N, dtype=bool), np.arange(N) >= N * 3 // 4
    label = draw_labels(-1.0 + 0.7 * extra)

    found = fit_linear(design_of(matrix), matrix, label, used, later, "logit", extra=extra[:, None], offset=0.5 * extra)

    assert found.weights[0, -1] == pytest.approx(0.2, abs=5 / np.sqrt(N * 0.18))
    assert np.corrcoef(found.scores, extra)[0, 1] > 0.99


def test_scaling_tells_constants_and_gaps() -> None:
    """A constant has a deviation of 1; a column has gaps where it is known somewhere and missing elsewhere."""
    nothing = np.nan
    matrix = np.array([[1.0, 5.0, nothing], [2.0, 5.0, nothing], [1.0, 5.0, nothing], [nothing, 5.0, nothing]])

    found = find_scaling(COLUMNS, matrix)

    assert found.deviations[1:] == (1.0, 1.0)
    assert found.means[1] == pytest.approx(np.log(6.0))
    assert found.has_missing == (True, False, False)


def test_loss_is_least_at_the_truth() -> None:
    """Both losses are lower at the scores that made the labels than beside them."""
    scores = np.random.default_rng(7).normal(size=N)
    label, ones = draw_labels(scores), np.ones(N)
    counts = np.random.default_rng(8).poisson(np.exp(scores)).astype(np.float64)

    for shift in (-0.3, 0.3):
        assert loss("logit", scores, label, ones) < loss("logit", scores + shift, label, ones)
        assert loss("log", scores, counts, ones) < loss("log", scores + shift, counts, ones)


def test_same_rows_give_the_same_weights() -> None:
    """Fitting has no chance in it."""
    matrix = rows(2_000)
    label = draw_labels(matrix[:, 1] / 3)

    one, other = fitted(matrix, label), fitted(matrix, label)

    np.testing.assert_array_equal(one.weights, other.weights)
    assert one.weights.shape == (4, design_of(matrix).width)
