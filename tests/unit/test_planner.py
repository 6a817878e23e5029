"""Cascades valued by enumeration, held against the formula and against looking at every sequence."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from models import planner
from models.curves import Curves
from models.planner import CascadeValues, Prices, value_cascades, value_sequence

FloatArray = NDArray[np.float64]
Plan = Callable[..., CascadeValues]
CHANNELS = ("push", "email", "sms", "viber")
PAID = {"sms", "viber"}
MOST_SENDS = 6


def curves_of(
    channels: Sequence[str],
    start: Sequence[int],
    click: FloatArray,
    gain: FloatArray,
    pending_click: FloatArray,
    weights: FloatArray,
    pending_gain: float = 20.0,
) -> Curves:
    """Return curves of sends that are clicked in a cell with these chances, shape (m, Z, G), none before its start; a click earns `gain`, shape (m,)."""
    cells = pending_click.shape[1]
    is_open = np.arange(cells)[None, None, :] >= np.array(start, dtype=np.intp)[:, None, None]
    click = np.where(is_open, click, 0.0)
    zeros = np.zeros(len(channels))
    return Curves(
        channel=tuple(channels),
        start=np.array(start, dtype=np.intp),
        worth=weights[None, :, None] * click * gain[:, None, None],
        before=_before(click),
        weights=weights,
        pending_worth=weights[:, None] * pending_click * pending_gain,
        pending_before=_before(pending_click),
        uplift=zeros,
        p_unsubscribe=zeros,
        p_notice=zeros,
        p_click=zeros,
        p_organic=0.0,
    )


def _before(click: FloatArray) -> FloatArray:
    before = np.ones_like(click)
    before[..., 1:] = 1 - np.cumsum(click, axis=-1)[..., :-1]
    return before


@st.composite
def some_curves(draw: st.DrawFn, least: int = 0) -> Curves:
    """Draw the curves of up to six sends over few nodes and cells, with or without something that was made before."""
    m, nodes, cells = draw(st.integers(least, MOST_SENDS)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    chances = st.floats(0, 1 / cells)
    weights = np.array(draw(st.lists(st.floats(0.1, 1), min_size=nodes, max_size=nodes)))
    has_pending = draw(st.booleans())
    return curves_of(
        draw(st.lists(st.sampled_from(CHANNELS), min_size=m, max_size=m)),
        draw(st.lists(st.integers(0, cells - 1), min_size=m, max_size=m)),
        draw(arrays.arrays(np.float64, (m, nodes, cells), elements=chances)),
        draw(arrays.arrays(np.float64, m, elements=st.floats(-20, 200))),
        draw(arrays.arrays(np.float64, (nodes, cells), elements=chances)) if has_pending else np.zeros((nodes, cells)),
        weights / weights.sum(),
    )


@st.composite
def some_cases(draw: st.DrawFn, least: int = 0) -> tuple[Curves, Prices]:
    """Draw curves with prices, and cells from which a next step may follow."""
    curves = draw(some_curves(least))
    m, cells = len(curves.channel), curves.pending_worth.shape[1]
    prices = Prices(
        micros=draw(arrays.arrays(np.float64, m, elements=st.sampled_from([0.0, 1.0, 5.3, 40.0]))),
        is_paid=np.array([channel in PAID for channel in curves.channel], dtype=bool),
        ready=curves.start + draw(arrays.arrays(np.intp, m, elements=st.integers(1, cells))),
    )
    return curves, prices


def allowed(curves: Curves, prices: Prices, sequence: Sequence[int], *, is_strict: bool) -> bool:
    """Tell whether a sequence of sends may be planned."""
    channels = [curves.channel[a] for a in sequence]
    in_time = all(curves.start[b] >= prices.ready[a] for a, b in itertools.pairwise(sequence))
    free = len({c for c, paid in zip(curves.channel, prices.is_paid, strict=True) if not paid})
    waits = all(not is_strict or free <= place or not prices.is_paid[a] for place, a in enumerate(sequence) if place)
    return len(set(channels)) == len(channels) and in_time and waits


def best_of_all(curves: Curves, prices: Prices, steps: int, *, is_strict: bool) -> FloatArray:
    """Return the value of the best sequence of at most so many sends for each first send, by looking at every one."""
    m = len(curves.channel)
    found = np.full(m, -np.inf)
    for length in range(1, min(steps, 3) + 1):
        for sequence in itertools.permutations(range(m), length):
            if allowed(curves, prices, sequence, is_strict=is_strict):
                found[sequence[0]] = max(found[sequence[0]], value_sequence(curves, prices, sequence))
    return found


def by_reference(curves: Curves, prices: Prices, steps: int, *, is_strict: bool = False) -> CascadeValues:
    """Value cascades as where nothing is compiled."""
    with patch.object(planner, "_kernel", lambda: None):
        return value_cascades(curves, prices, steps, is_strict=is_strict)


either_planner = pytest.mark.parametrize("plan", [value_cascades, by_reference])


def exactly(value: float | FloatArray) -> object:
    return pytest.approx(value, rel=1e-9, abs=1e-6)


@given(case=some_cases(), is_strict=st.booleans())
def test_one_and_two_steps_are_valued_as_the_formula_says(case: tuple[Curves, Prices], is_strict: bool) -> None:
    """A send alone, and the best pair that begins with it, are worth what the formula gives cell by cell."""
    curves, prices = case

    found = value_cascades(curves, prices, 2, is_strict=is_strict)

    assert found.alone == exactly(best_of_all(curves, prices, 1, is_strict=is_strict))
    assert found.value == exactly(best_of_all(curves, prices, 2, is_strict=is_strict))
    assert np.array_equal(found.pair, found.value)


@either_planner
@given(case=some_cases(), steps=st.integers(1, 4), is_strict=st.booleans())
def test_values_are_those_of_looking_at_every_sequence(
    plan: Plan, case: tuple[Curves, Prices], steps: int, is_strict: bool
) -> None:
    """Each value is that of the best sequence of up to three."""
    curves, prices = case

    found = plan(curves, prices, steps, is_strict=is_strict)

    assert found.value == exactly(best_of_all(curves, prices, steps, is_strict=is_strict))


@given(case=some_cases(), steps=st.integers(1, 4), is_strict=st.booleans())
def test_planned_steps_earn_what_is_said(case: tuple[Curves, Prices], steps: int, is_strict: bool) -> None:
    """The steps named for a send may be planned, are no more than are left, and are worth the value; so are their beginnings."""
    curves, prices = case

    found = value_cascades(curves, prices, steps, is_strict=is_strict)

    for first in range(len(curves.channel)):
        sequence = (first, *found.following(first))
        assert len(sequence) <= steps
        assert allowed(curves, prices, sequence, is_strict=is_strict)
        beginnings = [value_sequence(curves, prices, sequence[:length]) for length in range(1, len(sequence) + 1)]
        assert list(found.growing(first)) == exactly(np.array(beginnings))
        assert found.growing(first)[-1] == exactly(found.value[first])


@either_planner
@given(case=some_cases(least=1), data=st.data())
def test_taking_a_channel_away_never_raises_a_value(
    plan: Plan, case: tuple[Curves, Prices], data: st.DataObject
) -> None:
    """Fewer possibilities are never worth more, whichever send comes first."""
    curves, prices = case
    gone = data.draw(st.sampled_from(curves.channel))
    kept = np.array([channel != gone for channel in curves.channel])
    fewer = replace(prices, micros=prices.micros[kept], is_paid=prices.is_paid[kept], ready=prices.ready[kept])

    full = plan(curves, prices, 3).value
    less = plan(curves.keep(kept), fewer, 3).value

    assert np.all(less <= full[kept])


@given(case=some_cases(least=1), extra=st.floats(0, 100), is_strict=st.booleans(), data=st.data())
def test_a_dearer_channel_never_raises_a_value(
    case: tuple[Curves, Prices], extra: float, is_strict: bool, data: st.DataObject
) -> None:
    """Raising the price of one channel lowers what plans are worth, or leaves it."""
    curves, prices = case
    dear = data.draw(st.sampled_from(curves.channel))
    raised = prices.micros + extra * np.array([channel == dear for channel in curves.channel])

    before = value_cascades(curves, prices, 3, is_strict=is_strict).value
    after = value_cascades(curves, replace(prices, micros=raised), 3, is_strict=is_strict).value

    assert np.all(after <= before + 1e-6)


def test_no_send_is_no_cascade() -> None:
    """Where there is nothing to send, there is nothing to value."""
    nothing = curves_of([], [], np.zeros((0, 1, 2)), np.zeros(0), np.zeros((1, 2)), np.ones(1))
    prices = Prices(micros=np.zeros(0), is_paid=np.zeros(0, dtype=bool), ready=np.zeros(0, dtype=np.intp))

    assert len(value_cascades(nothing, prices, 3).value) == 0


def simple(rows: Sequence[tuple[str, int, float, float, float]]) -> tuple[Curves, Prices]:
    """Return sends of (channel, cell, P(click) in each cell from its own on, worth of a click, price) over four cells and one node."""
    chance = np.array([[[row[2]] * 4] for row in rows])
    worth = np.array([row[3] for row in rows])
    starts = [row[1] for row in rows]
    curves = curves_of([row[0] for row in rows], starts, chance, worth, np.zeros((1, 4)), np.ones(1))
    prices = Prices(
        micros=np.array([row[4] for row in rows]),
        is_paid=np.array([row[0] in PAID for row in rows]),
        ready=np.array(starts, dtype=np.intp) + 1,
    )
    return curves, prices


def test_a_free_channel_goes_first_where_the_paid_one_can_wait() -> None:
    """A little better paid send comes second, since the free one may make it needless."""
    curves, prices = simple([("push", 0, 0.2, 50, 0), ("sms", 0, 0.22, 60, 15), ("sms", 3, 0.5, 60, 15)])

    found = value_cascades(curves, prices, 3)

    assert found.value.argmax() == 0
    assert found.following(0) == (2,)
    assert found.growing(0) == exactly(np.array([40.0, 40.0 + 0.4 * (0.5 * 60 - 15)]))


def test_a_paid_step_is_paid_for_by_those_who_are_left_alone() -> None:
    """A paid step that loses on everybody is left out, however many are left."""
    curves, prices = simple([("push", 0, 0.05, 50, 0), ("sms", 2, 0.1, 20, 5.3)])

    assert value_cascades(curves, prices, 3).following(0) == ()
    assert value_cascades(curves, replace(prices, micros=np.array([0.0, 1.0])), 3).following(0) == (1,)


def test_strictly_free_first_opens_paid_steps_when_free_ones_are_used_up() -> None:
    """With two free channels a paid one can only be the third step."""
    curves, prices = simple(
        [("push", 0, 0.05, 5, 0), ("email", 1, 0.05, 4, 0), ("sms", 1, 0.1, 90, 5), ("sms", 2, 0.1, 90, 5)]
    )

    assert value_cascades(curves, prices, 3, is_strict=True).following(0) == (1, 3)
    assert value_cascades(curves, prices, 3).following(0)[0] == 2


def test_who_was_sent_something_before_is_worth_less() -> None:
    """What is still to come of an earlier send takes from a new one: both cannot be the first reaction."""
    curves, prices = simple([("push", 0, 0.2, 50, 0)])
    waiting = np.full((1, 4), 0.2)
    pending = replace(curves, pending_worth=waiting * 50, pending_before=_before(waiting))

    assert value_cascades(pending, prices, 3).value[0] < 0.5 * value_cascades(curves, prices, 3).value[0]
