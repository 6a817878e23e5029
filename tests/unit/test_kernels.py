"""The compiled kernels, held against the Python beside them: they find the same to the bit, and are not missed where they are not there."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import compiled, curves, planner, policies
from models.curves import Curves, curves_of_click, plain_click, plain_curves, plain_lags
from models.planner import Campaign, CascadeValues, Prices, value_campaign, value_cascades, value_with_free
from tests.benchmarks.planning import CHANNELS, NOW, PRICES, make_context, make_funnel
from tests.unit.test_planner import some_cases

FloatArray = NDArray[np.float64]
NAMES = ("alone", "pair", "value", "second", "third")


def both(
    case: tuple[Curves, Prices], steps: int = 3, *, is_strict: bool = False
) -> tuple[CascadeValues, CascadeValues]:
    compiled_values = value_cascades(*case, steps, is_strict=is_strict)
    with patch.object(planner, "_kernel", lambda: None):
        return compiled_values, value_cascades(*case, steps, is_strict=is_strict)


def assert_same(found: CascadeValues, expected: CascadeValues) -> None:
    for name in NAMES:
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name


def drawn(hours: int, seed: int) -> tuple[Curves, Prices]:
    """Draw the curves of six channels with sixteen slots each, as a bundle draws them."""
    now = NOW.timestamp() / 3600
    starts = [now, *(float(int(now) + i * (hours - 1) // 16) for i in range(1, 16))]
    sends = [(channel, start) for channel in CHANNELS for start in starts]
    found = make_funnel(seed).curves(make_context(hours - 0.5, seed), sends, (), 9e8, 3e8)
    price = np.repeat(PRICES, 16)
    return found, Prices(micros=price, is_paid=price > 0, ready=found.ready(1))


@pytest.mark.parametrize(("name", "form"), [("walk", 2), ("plan", 6), ("curves", 2), ("draw", 1)])
def test_each_kernel_is_compiled(name: str, form: int) -> None:
    """Tests run with every kernel that has a file."""
    assert compiled.load(name, form) is not None
    assert (Path(compiled.__file__).parent / f"{name}.c").is_file()


def test_a_kernel_of_another_version_is_not_used() -> None:
    """A library that was compiled from another version of its file is as good as none."""
    assert compiled.load("plan", -1) is None
    assert compiled.load("nothing-of-that-name", 1) is None


@given(case=some_cases(), steps=st.integers(1, 4), is_strict=st.booleans())
def test_the_compiled_planner_finds_the_same_to_the_bit(
    case: tuple[Curves, Prices], steps: int, is_strict: bool
) -> None:
    """Values and steps of every cascade are those of the reference, whatever is pending, closed or tied."""
    assert_same(*both(case, steps, is_strict=is_strict))


@pytest.mark.parametrize("hours", [48, 72, 150])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("is_strict", [True, False])
def test_the_compiled_planner_plans_real_curves_to_the_bit(hours: int, seed: int, is_strict: bool) -> None:
    """Ninety-six sends as a bundle draws them are planned alike."""
    assert_same(*both(drawn(hours, seed), is_strict=is_strict))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_strict", [False, True])
def test_free_sends_of_real_curves_are_planned_on_the_way(seed: int, is_strict: bool) -> None:
    """What the best free send is worth with free ones after it is what planning these alone says, to the bit."""
    found, prices = drawn(48, seed)
    free = ~prices.is_paid

    values, most = value_with_free(found, prices, 3, free, is_strict=is_strict)

    part = Prices(micros=prices.micros[free], is_paid=prices.is_paid[free], ready=prices.ready[free])
    assert most == value_cascades(found.keep(free), part, 3, is_strict=is_strict).value.max()
    assert_same(values, value_cascades(found, prices, 3, is_strict=is_strict))


def test_of_sends_that_are_worth_the_same_the_first_is_planned() -> None:
    """Where channels are exactly alike, both take the first of them."""
    found = drawn(48, 0)[0]
    first = np.tile(np.arange(16), 6)
    alike = replace(found, worth=found.worth[first], before=found.before[first], start=found.start[first])
    same = Prices(micros=np.zeros(96), is_paid=np.zeros(96, dtype=bool), ready=alike.start + 1)

    fast, slow = both((alike, same), 2)

    assert_same(fast, slow)
    assert fast.second[0] < 32
    assert fast.value[0] == fast.value[16]


def test_bounds_that_do_not_hold_are_not_used() -> None:
    """Where something happens before a send's start, which no curves draw, the compiled planner still finds the same."""
    found, prices = drawn(48, 1)
    early = replace(found, start=np.minimum(found.start + 5, 47))

    assert_same(*both((early, replace(prices, ready=early.start + 1))))


def test_a_planner_that_adds_up_otherwise_is_put_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library whose results differ from the reference by a bit is not used."""
    right = planner._best_by

    def wrong(library: object, case: planner.Case) -> CascadeValues:
        found = right(library, case)
        return replace(found, value=np.nextafter(found.value, np.inf))

    monkeypatch.setattr(planner, "_best_by", wrong)
    monkeypatch.setattr(planner, "_kernel", planner._kernel.__wrapped__)

    assert planner._kernel() is None


@pytest.mark.parametrize("hours", [30, 72, 150])
def test_compiled_curves_are_the_same_to_the_bit(hours: int) -> None:
    """Worth, chances of no reaction and what they come to are those that numpy gives."""
    fast = drawn(hours, 3)[0]
    with patch.object(curves, "_kernel", lambda: None):
        slow = drawn(hours, 3)[0]

    for name in ("worth", "before", "uplift", "p_unsubscribe", "p_notice", "p_click"):
        assert getattr(fast, name).tobytes() == getattr(slow, name).tobytes(), name


@given(
    uplift=st.lists(st.floats(-0.3, 0.9), min_size=1, max_size=12),
    waits=st.lists(st.sampled_from([0.25, 2.0, 24.0, 60.0]), min_size=12, max_size=12),
    after=st.lists(st.floats(0, 47), min_size=12, max_size=12),
    leaving=st.floats(0, 0.5),
)
def test_compiled_plain_curves_are_the_same_to_the_bit(
    uplift: list[float], waits: list[float], after: list[float], leaving: float
) -> None:
    """So are those of a model that knows the uplift alone, negative ones and impossible ones too."""
    m, now = len(uplift), NOW.timestamp() / 3600
    sends = [(CHANNELS[i % 6], now + after[i]) for i in range(m)]

    def draw() -> Curves:
        rates, lags = np.full(m, leaving), np.array(waits[:m])
        return plain_curves(make_context(48.0), sends, np.array(uplift), rates, lags, 9e8, 3e8)

    fast = draw()
    with patch.object(curves, "_kernel", lambda: None):
        slow = draw()

    assert fast.worth.tobytes() == slow.worth.tobytes()
    assert fast.before.tobytes() == slow.before.tobytes()


@given(
    uplift=st.lists(st.floats(-0.3, 0.9), min_size=2, max_size=24),
    waits=st.lists(st.sampled_from([0.25, 2.0, 24.0, 60.0]), min_size=6, max_size=6),
    after=st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.5, 9.0, 20.0, 47.0]), min_size=24, max_size=24),
    leaving=st.floats(0, 0.5),
    hours=st.sampled_from([48.0, 150.0]),
    is_strict=st.booleans(),
)
def test_plain_curves_are_planned_to_the_bit(
    uplift: list[float], waits: list[float], after: list[float], leaving: float, hours: float, is_strict: bool
) -> None:
    """What sends have in common saves sums, and changes nothing that is found, of all sends and of some."""
    m, now = len(uplift), NOW.timestamp() / 3600
    sends = [(CHANNELS[i % 6], now + after[i]) for i in range(m)]
    wait_hours = np.array([waits[i % 6] for i in range(m)])
    found = plain_curves(make_context(hours), sends, np.array(uplift), np.full(m, leaving), wait_hours, 9e8, 3e8)
    price, some = np.array([PRICES[i % 6] for i in range(m)]), np.arange(m) % 3 > 0
    prices = Prices(micros=price, is_paid=price > 0, ready=found.ready(1))
    kept = found.keep(some)

    assert found.shapes is not None
    assert_same(*both((found, prices), is_strict=is_strict))
    fewer = Prices(micros=price[some], is_paid=prices.is_paid[some], ready=kept.ready(1))
    assert_same(*both((kept, fewer), is_strict=is_strict))


@given(
    uplift=st.lists(st.floats(-0.3, 0.9), min_size=2, max_size=24),
    waits=st.lists(st.sampled_from([0.25, 2.0, 24.0, 60.0]), min_size=6, max_size=6),
    after=st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.5, 9.0, 20.0, 47.0]), min_size=24, max_size=24),
    leaving=st.floats(0, 0.5),
    steps=st.integers(1, 4),
    is_strict=st.booleans(),
)
def test_a_campaign_is_planned_to_the_bit_and_its_free_sends_on_the_way(
    uplift: list[float], waits: list[float], after: list[float], leaving: float, steps: int, is_strict: bool
) -> None:
    """Customers drawn and planned in one call get what each gets by itself; of free sends alone the best is worth what planning them alone says."""
    m, now, cells = len(uplift), NOW.timestamp() / 3600, [0.0, 47.0]
    after = [*cells, *after[2:m]]
    sends = [(CHANNELS[i % 6], now + after[i]) for i in range(m)]
    wait_hours, price = np.array([waits[i % 6] for i in range(m)]), np.array([PRICES[i % 6] for i in range(m)])
    how = plain_lags(make_context(48.0), sends, wait_hours)
    gains = np.array([uplift, uplift[::-1]])
    is_free = np.array([price == 0, (price == 0) & (np.arange(m) % 3 < 2)])
    campaign = Campaign(
        how=how,
        ready=how.ready(1),
        is_paid=price > 0,
        steps=steps,
        is_strict=is_strict,
        click=plain_click(gains),
        uplift=gains,
        p_unsubscribe=np.full((2, m), leaving),
        price=np.array([price, price]),
        margin=np.array([9e8, 4e8]),
        harm_micros=3e8,
        is_free=is_free,
    )

    fast = value_campaign(campaign)
    with patch.object(planner, "_kernel", lambda: None), patch.object(curves, "_kernel", lambda: None):
        slow = value_campaign(campaign)

    assert slow.free_most is None
    assert fast.free_most is not None
    for customer, (found, expected) in enumerate(zip(fast.values, slow.values, strict=True)):
        assert_same(found, expected)
        own = curves_of_click(
            how, campaign.click[customer], gains[customer], np.full(m, leaving), campaign.margin[customer], 3e8
        )
        of_free = is_free[customer]
        kept = own.keep(of_free)
        prices = Prices(
            micros=price[of_free], is_paid=np.zeros(of_free.sum(), dtype=bool), ready=campaign.ready[of_free]
        )
        alone = value_cascades(kept, prices, steps, is_strict=is_strict)
        assert fast.free_most[customer] == alone.value.max(initial=-np.inf)


@given(
    parts=st.lists(st.sampled_from([0.0, 1e-300, 0.1, 0.25, 1.0, 7.0]), min_size=1, max_size=30).filter(any),
    seed=st.one_of(
        st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1, 2**64, 2**90]), st.integers(0, 2**64)
    ),
)
def test_the_compiled_draw_is_that_of_numpy(parts: list[float], seed: int) -> None:
    """The same seed draws the same action with and without a compiler."""
    probabilities = np.array(parts) / sum(parts)

    drawn = policies.draw(probabilities, seed)

    assert drawn == policies.draw_by_numpy(probabilities, seed)
    assert probabilities[drawn] > 0


def test_a_generator_that_draws_otherwise_is_put_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were numpy to change its generator, or a library not to be of it, numpy would draw."""
    monkeypatch.setattr(policies, "_TRIED", (policies._SEEDS,))

    assert policies._kernel.__wrapped__() is None
