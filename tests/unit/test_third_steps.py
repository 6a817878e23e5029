"""The search for third steps leaves nothing out: held against all cascades of up to three sends, where reactions are seldom or likely, paid for or harmful."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from models.curves import Curves, plain_curves
from models.planner import Prices, value_cascades
from models.slate import MOST_SLOTS, SPREAD_SLOTS, Action, Actions
from tests.benchmarks.planning import NOW, make_context
from tests.unit.test_planner import Plan, by_reference, curves_of

FloatArray = NDArray[np.float64]
MOMENT = datetime(2026, 11, 4, 9, tzinfo=UTC)
CHANNELS = ("push", "email", "in_app", "sms", "viber")
PAID = {"sms", "viber"}
MARGIN, HARM = 9e8, 3e8
WAITS = {
    "all channels alike": [24.0] * 5,
    "slow and fast": [0.25, 2.0, 9.0, 24.0, 60.0],
    "two ways": [2.0, 24.0, 2.0, 24.0, 24.0],
}
UPLIFTS = {"seldom": (0.0, 0.05), "likely": (0.3, 0.9), "harmful": (-0.3, 0.4)}


def exhaustive(curves: Curves, prices: Prices, *, is_strict: bool) -> FloatArray:
    """Return the value of the best cascade of each first send: of every pair and every triple that may be planned, one after another."""
    m = len(curves.channel)
    net = curves.worth * curves.pending_before
    alive = curves.pending_before[:, curves.start].T
    net[np.arange(m), :, curves.start] -= prices.micros[:, None] * curves.weights * alive
    names = np.array(curves.channel)
    free = len(set(names[~prices.is_paid].tolist()))
    apart = names[:, None] != names
    follows = apart & (curves.start >= prices.ready[:, None])
    if prices.is_later is not None:
        follows &= prices.is_later
    seconds = follows & ~(prices.is_paid & is_strict & (free > 1))
    thirds = follows & ~(prices.is_paid & is_strict & (free > 2))
    nothing = curves.pending_worth.sum()
    values: FloatArray = (curves.pending_worth * curves.before + net).sum(axis=(1, 2)) - nothing
    for a in range(m):
        earned, left = curves.pending_worth * curves.before[a] + net[a], curves.before[a]
        for b in np.flatnonzero(seconds[a]):
            of_two, left_of_two = earned * curves.before[b] + left * net[b], left * curves.before[b]
            last = np.flatnonzero(thirds[b] & apart[a])
            of_three = (of_two * curves.before[last] + left_of_two * net[last]).sum(axis=(1, 2)) - nothing
            values[a] = max(values[a], of_two.sum() - nothing, of_three.max(initial=-np.inf))
    return values


def plain(seed: int, waits: list[float], uplift: tuple[float, float], hours: int) -> tuple[Curves, Prices]:
    """Return forty sends of a model that knows the uplift alone; what is paid about what a paid third step earns."""
    rng = np.random.default_rng(seed)
    sends = [
        (channel, NOW.timestamp() / 3600 + float(after))
        for channel in CHANNELS
        for after in [0.0, *rng.uniform(0, hours - 2, 6), hours - 2]
    ]
    names = [channel for channel, _ in sends]
    wait = np.array([waits[CHANNELS.index(name)] for name in names])
    gain = rng.uniform(*uplift, len(sends))
    leaving = rng.choice([0.0, 0.01, 0.3], len(sends))
    found = plain_curves(make_context(float(hours)), sends, gain, leaving, wait, MARGIN, HARM)
    is_paid = np.array([name in PAID for name in names])
    price = np.where(is_paid, rng.uniform(0, 0.2 * MARGIN * max(uplift[1], 0.1), len(sends)), 0.0)
    return found, Prices(micros=price, is_paid=is_paid, ready=found.ready(int(rng.integers(1, 5))))


def drawn(seed: int, chance: float, nodes: int) -> tuple[Curves, Prices]:
    """Return thirty sends whose reactions come in no common shape, some of which cost customers, with something made before."""
    rng, m, cells = np.random.default_rng(seed), 30, 20
    channels = [CHANNELS[place] for place in rng.integers(0, 5, m)]
    click = rng.uniform(0, 1, (m, nodes, 1)) * rng.dirichlet(np.full(cells, 0.3), (m, nodes)) * chance
    waiting = rng.dirichlet(np.ones(cells), nodes) * chance * rng.integers(0, 2)
    weights = rng.uniform(0.1, 1, nodes)
    start = rng.integers(0, cells - 1, m)
    found = curves_of(channels, start.tolist(), click, rng.uniform(-30, 200, m), waiting, weights / weights.sum())
    found = replace(found, worth=found.worth - 5 * chance * rng.uniform(0, 1, found.worth.shape) * (found.worth > 0))
    is_paid = np.array([channel in PAID for channel in channels])
    price = np.where(is_paid, rng.uniform(0, 60 * chance, m), 0.0)
    return found, Prices(micros=price, is_paid=is_paid, ready=start + rng.integers(1, 4, m))


def assert_nothing_is_left_out(case: tuple[Curves, Prices], *, is_strict: bool) -> None:
    curves, prices = case
    expected = exhaustive(curves, prices, is_strict=is_strict)
    size = np.abs(curves.worth).sum(axis=(1, 2)).max() + prices.micros.max()

    compiled = value_cascades(curves, prices, 3, is_strict=is_strict)
    reference = by_reference(curves, prices, 3, is_strict=is_strict)

    assert np.abs(compiled.value - expected).max() <= 1e-12 * size
    for name in ("alone", "pair", "value", "second", "third"):
        assert getattr(compiled, name).tobytes() == getattr(reference, name).tobytes(), name


@pytest.mark.parametrize("hours", [48, 400])
@pytest.mark.parametrize("uplift", UPLIFTS.values(), ids=UPLIFTS)
@pytest.mark.parametrize("waits", WAITS.values(), ids=WAITS)
def test_the_best_third_step_of_plain_curves_is_found(
    waits: list[float], uplift: tuple[float, float], hours: int
) -> None:
    """Whatever lags sends have in common, both planners find the best cascade of each first send."""
    for seed in range(4):
        case = plain(seed, waits, uplift, hours)
        assert case[0].shapes is not None
        assert_nothing_is_left_out(case, is_strict=seed == 0)


@pytest.mark.parametrize("chance", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_the_best_third_step_of_drawn_curves_is_found(chance: float, nodes: int) -> None:
    """So they do where nothing is in common, and where something was made before."""
    for seed in range(8):
        assert_nothing_is_left_out(drawn(seed, chance, nodes), is_strict=seed == 0)


@pytest.mark.parametrize("uplift", UPLIFTS.values(), ids=UPLIFTS)
def test_where_some_sends_alone_may_be_later_steps_the_best_of_them_are_found(uplift: tuple[float, float]) -> None:
    """Both planners find the best cascade whose later steps are among those that may be, whichever send comes first."""
    curves, prices = plain(1, WAITS["two ways"], uplift, 48)
    is_later = np.arange(len(prices.is_paid)) % 3 > 0
    assert_nothing_is_left_out((curves, replace(prices, is_later=is_later)), is_strict=False)


def test_later_steps_are_spread_over_a_channel_with_many_slots() -> None:
    """A channel with many slots keeps some, evenly over them and the first among them; one with few keeps all, whatever others have."""
    slots = [Action(channel="push", send_time=MOMENT + timedelta(hours=hour)) for hour in range(39, -1, -1)]
    few = [Action(channel="sms", send_time=MOMENT + timedelta(hours=hour)) for hour in range(MOST_SLOTS)]

    found = Actions([Action(channel="none"), *slots, *few]).is_later

    kept = [39 - place for place in np.flatnonzero(found[:40])]
    assert sorted(kept) == list(range(0, 40, 40 // SPREAD_SLOTS))
    assert found[40:].all()
    assert Actions(few).is_later.all()
    assert len(Actions([Action(channel="none")]).is_later) == 0


@pytest.mark.parametrize("plan", [value_cascades, by_reference])
def test_a_third_step_that_ends_harm_is_found(plan: Plan) -> None:
    """A send that earns nothing is worth sending where a reaction to it spares what the second would do late."""
    channels, start = ["push", "email", "email", "in_app"], [0, 1, 1, 2]
    click = np.array([[[0.1, 0, 0, 0]], [[0, 0.1, 0, 0]], [[0, 0.3, 0, 0.3]], [[0, 0, 0.9, 0]]])
    curves = curves_of(channels, start, click, np.array([9.0, 50.0, 50.0, 0.0]), np.zeros((1, 4)), np.ones(1))
    worth = curves.worth.copy()
    worth[2, 0, 3] = -12.0
    prices = Prices(micros=np.zeros(4), is_paid=np.zeros(4, dtype=bool), ready=curves.start + 1)

    found = plan(replace(curves, worth=worth), prices, 3)

    assert found.following(0) == (2, 3)


@pytest.mark.parametrize("uplift", UPLIFTS.values(), ids=UPLIFTS)
@pytest.mark.parametrize("waits", WAITS.values(), ids=WAITS)
def test_no_first_send_gains_by_a_channel_less(waits: list[float], uplift: tuple[float, float]) -> None:
    """Of forty sends, whichever channel is taken away, no first send of the others is worth more, to the bit."""
    curves, prices = plain(7, waits, uplift, 48)
    full = value_cascades(curves, prices, 3).value
    for gone in CHANNELS:
        kept = np.array([channel != gone for channel in curves.channel])
        fewer = Prices(micros=prices.micros[kept], is_paid=prices.is_paid[kept], ready=prices.ready[kept])

        less = value_cascades(curves.keep(kept), fewer, 3).value

        assert np.all(less <= full[kept])
