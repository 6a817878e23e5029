"""Early labels: what is seen and clicked before the window of orders closes is learned from, and what is not known yet is not taken for a no."""

from dataclasses import replace

import numpy as np
import pytest

from models.curves import FunnelModel
from tests.training.examples import HOUR, NOW, WINDOW, closing, logged, order, write
from tests.training.test_funnel import ARRIVES, CLICKS, HYPER, REACH, drawn, model_of, shop
from training.dataset import Dataset, read_dataset
from training.funnel import FittedFunnel, fit_funnel
from training.journal import LoggedOutcome

CLOSED, EARLY = 3000, 12_000


def seen(hours: float, kind: str = "seen") -> LoggedOutcome:
    return LoggedOutcome(type=kind, occur_time=NOW + hours * HOUR)


def test_open_windows_are_read_apart(log_url: str) -> None:
    """With early labels asked for, decisions of open windows come beside the others, with how long they were watched: until an hour before the
    newest entry."""
    early = [seen(30.0), seen(31.0, "clicked"), order(NOW + 32 * HOUR)]
    write(
        log_url,
        [
            logged("old", moment=NOW - WINDOW),
            logged("open", outcomes=early, customer="boris"),
            closing(NOW + 40 * HOUR),
        ],
    )

    data = read_dataset(log_url, WINDOW, with_early=True)
    plain = read_dataset(log_url, WINDOW)

    assert (len(data), len(plain), plain.early) == (1, 1, None)
    assert data.watched_hours.tolist() == [72]
    assert data.early is not None
    assert (data.early.seen.tolist(), data.early.clicked.tolist()) == ([1.0], [1.0])
    assert data.early.watched_hours.tolist() == [39]


def test_what_happened_after_the_time_asked_for_is_not_known_yet(log_url: str) -> None:
    """As of two hours after a decision nobody knows what follows in the third."""
    outcomes = [seen(3.0), seen(3.0, "unsubscribe"), seen(3.0, "undelivered")]
    write(log_url, [logged("old", moment=NOW - WINDOW), logged("open", outcomes=outcomes, customer="boris"), closing()])

    early = read_dataset(log_url, WINDOW, as_of=NOW + 2 * HOUR, with_early=True).early

    assert early is not None
    assert [float(x[0]) for x in (early.seen, early.unsubscribed, early.delivered)] == [0.0, 0.0, 1.0]
    assert early.watched_hours.tolist() == [1]


def open_shop(response: float = 0.0, decisions: int = CLOSED + EARLY) -> Dataset:
    """The shop's decisions, of which all but the first 3,000 were watched for three to thirty hours, which tell nothing of orders."""
    data = shop(decisions)
    watched = np.random.default_rng(5).uniform(3, 30, size=len(data))
    is_closed = np.arange(len(data)) < CLOSED
    is_seen = is_closed | (data.seen_hours < watched)
    cut = replace(
        data,
        seen=np.where(is_seen, data.seen, 0.0),
        seen_hours=np.where(is_seen, data.seen_hours, np.nan),
        clicked=np.where(is_seen, data.clicked, 0.0),
        clicked_hours=np.where(is_seen, data.clicked_hours, np.nan),
        unsubscribed=np.where(is_seen, data.unsubscribed, 0.0),
        response=np.where(is_closed, data.response, response),
        watched_hours=np.where(is_closed, 72.0, watched),
        window_hours=72.0,
    )
    return replace(cut.take(is_closed), early=cut.take(~is_closed))


def fitted(data: Dataset) -> FittedFunnel:
    found = fit_funnel(data, np.arange(len(data)) >= len(data) * 3 // 4, HYPER, lambda _: None)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def learned() -> FittedFunnel:
    return fitted(open_shop())


@pytest.fixture(scope="module")
def model(learned: FittedFunnel) -> FunnelModel:
    return model_of(learned)


def test_an_open_window_adds_no_false_no(learned: FittedFunnel) -> None:
    """Whatever stands for the orders of open windows, the fit is the same to the last bit; so are the later part's predictions."""
    ordered = fitted(open_shop(response=1.0))

    assert ordered.description == learned.description
    assert ordered.texts == learned.texts
    assert np.array_equal(ordered.p_later, learned.p_later)


def test_open_windows_teach_stages_and_no_orders(learned: FittedFunnel) -> None:
    """Notices, clicks and refusals of open windows change their stages; what is said of organic orders stays as it is without them."""
    without = fitted(replace(open_shop(), early=None))

    for stage in ("notice", "click", "unsubscribe"):
        assert learned.description.stages[stage] != without.description.stages[stage]
    assert learned.description.lags != without.description.lags
    organic = [np.array(f.description.stages["organic"].weights)[0, 0] for f in (learned, without)]
    assert organic[0] == pytest.approx(organic[1], abs=1e-2)


@pytest.mark.parametrize("attached", [0, 1])
@pytest.mark.parametrize("channel", ["push", "sms"])
def test_stages_are_not_biased_by_open_windows(model: FunnelModel, channel: str, attached: int) -> None:
    """P(noticed) over the whole life of a message and P(clicked | noticed) are the truth, though most sends were watched for some hours only.

    A cell of channel and customer has 2,500 sends, at least 300 notices and 90 clicks: five standard errors are 0.05 of P(noticed) and, relative, 0.5 of
    P(clicked | noticed) in the thinnest cell, of which shrinking to what all cells say takes half.
    """
    found = drawn(model, channel, attached)

    assert found.p_notice[0] == pytest.approx(ARRIVES[channel] * REACH[channel][attached], abs=0.05)
    assert found.p_click[0] / found.p_notice[0] == pytest.approx(CLICKS[channel], rel=0.25)


def test_sends_that_were_not_made_yet_teach_nothing(learned: FittedFunnel) -> None:
    """A send planned for later than the log tells of is as if it were not there."""
    data = open_shop()
    assert data.early is not None
    extra = data.early.take(np.arange(len(data.early)) < 2000)
    unsent = replace(
        extra, send_hours=extra.send_hours + 60.0, seen=extra.seen * 0, seen_hours=extra.seen_hours * np.nan
    )
    both = replace(unsent, early=data.early).with_early()

    found = fitted(replace(data, early=both))

    for channel in ("push", "sms"):
        assert found.description.delivered[channel] == learned.description.delivered[channel]
        ours, theirs = (model_of(f) for f in (found, learned))
        assert drawn(ours, channel, 1).p_notice[0] == pytest.approx(drawn(theirs, channel, 1).p_notice[0], abs=1e-3)
