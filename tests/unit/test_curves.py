"""Response curves: what the formulas promise, and what happens at their edges."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfoNotFoundError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.actions import list_actions
from models.booster import Booster
from models.context import Context
from models.correction import Factor
from models.curves import (
    AGES,
    Asked,
    Curves,
    FunnelModel,
    Made,
    Room,
    cell_begins,
    log_relevance,
    made_before,
    plain_curves,
    sends_of,
)
from models.decide import best_cascades, decide
from models.eligibility import find_eligible
from models.features import Column
from models.planner import Prices, value_cascades, value_sequence
from models.stage import Scaling
from tests.unit.examples import CONTEXT, CUSTOMER, DAY, HOUR, NOW, RULES, bundle_of, contact, with_contacts
from tests.unit.funnels import FADING, STEADY, funnel, hours_of, lasting, stage

FloatArray = NDArray[np.float64]
MARGIN, HARM = 1e9, 2e8
MODEL = funnel()
EVERY = ("push", "email", "sms")


def draw(
    context: Context = CONTEXT,
    after: Sequence[tuple[str, float]] = (("push", 0.0),),
    made: Sequence[Made] = (),
    model: FunnelModel = MODEL,
    factors: Mapping[str, float] | None = None,
) -> Curves:
    """Draw the curves of sends so many hours after the decision; factors are of push."""
    now = hours_of(context.decide_time)
    corrections = {name: {"push": Factor(factor)} for name, factor in (factors or {}).items()}
    corrected = replace(context, factors=corrections)
    return model.curves(corrected, [(c, now + h) for c, h in after], made, MARGIN, HARM)


def made(channel: str, after: float, noticed: float | None = None, *, is_clicked: bool = False) -> Made:
    """Return a send made so many hours after the decision, noticed so many hours after it; negative is before."""
    now = hours_of(CONTEXT.decide_time)
    return Made(
        channel=channel,
        send_hours=now + after,
        noticed_hours=None if noticed is None else now + noticed,
        is_clicked=is_clicked,
    )


CASES = st.lists(st.tuples(st.sampled_from([*EVERY, "fax"]), st.floats(0, 80)), min_size=1, max_size=6)


@given(after=CASES, hours=st.floats(0.1, 100), half_life=st.sampled_from([None, 0.01, 5.0]), minutes=st.integers(0, 59))
def test_curves_are_chances(
    after: list[tuple[str, float]], hours: float, half_life: float | None, minutes: int
) -> None:
    """Noticed adds up to no more than delivered, before falls from 1 within [0, 1], and clicks, orders and refusals to no more than noticed."""
    context = lasting(hours, half_life=half_life, decide_time=NOW + timedelta(minutes=minutes))

    found = draw(context, after)

    delivered = np.array([{"push": 0.9, "email": 0.95, "sms": 0.97}.get(channel, 1.0) for channel, _ in after])
    assert np.all((found.p_notice >= 0) & (found.p_notice <= delivered + 1e-12))
    assert np.all(found.before[:, :, 0] == 1)
    assert np.all(np.diff(found.before, axis=2) <= 1e-15)
    assert np.all(found.before >= 0)
    assert np.all(found.p_click + found.p_unsubscribe <= found.p_notice + 1e-12)
    assert np.all((found.uplift >= 0) & (found.uplift <= found.p_click + 1e-12))
    assert found.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        found.worth.sum(axis=(1, 2)), MARGIN * found.uplift - HARM * found.p_unsubscribe, rtol=1e-9, atol=1e-3
    )


@pytest.mark.parametrize("score", [-5.0, -3.0, -1.5, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("deviation", [0.5, 1.0, 1.5, 2.0])
def test_interest_keeps_the_mean_chance_of_a_click(score: float, deviation: float) -> None:
    """Averaged over the nodes of interest the chance of a click stays within 0.02, or an eighth, of what the stage says."""
    found = draw(model=funnel({"click": stage(score)}, interest_deviation=deviation))

    mean = float(found.p_click[0] / found.p_notice[0])
    assert mean == pytest.approx(1 / (1 + np.exp(-score)), rel=0.125, abs=0.02)


def test_noticed_and_left_lowers_later_clicks() -> None:
    """Who noticed an earlier send and did nothing clicks a later one less often; one not noticed yet says nothing."""
    later = [("email", 0.0)]

    alone, noticed, waiting = (draw(after=later, made=m) for m in ([], [made("push", -2, -1)], [made("push", -2)]))

    assert noticed.p_click[0] < 0.95 * alone.p_click[0]
    assert waiting.p_click[0] == pytest.approx(alone.p_click[0], rel=1e-12)
    assert not noticed.pending_worth.any()
    assert waiting.pending_worth.sum() > 0


def test_clicked_raises_later_clicks() -> None:
    """Where a click does not end the cascade, it tells of interest, not of the lack of it."""
    later = [("email", 0.0)]

    clicked = draw(after=later, made=[made("push", -2, -1, is_clicked=True)])

    assert clicked.p_click[0] > 1.1 * draw(after=later).p_click[0]


@pytest.mark.parametrize("carried", [0.3, 0.6, 1.0])
def test_interest_that_carries_over_to_orders_moves_them_with_clicks(carried: float) -> None:
    """Of a first send the chance of an order stays what the stages say; after a send noticed and left a click is worth less, after one clicked more."""
    later = [("email", 0.0)]
    moods: tuple[list[Made], ...] = ([], [made("push", -2, -1)], [made("push", -2, -1, is_clicked=True)])

    plain = [draw(after=later, made=m) for m in moods]
    alone, left, clicked = (draw(after=later, made=m, model=funnel(order_interest=carried)) for m in moods)

    gain, gain_left, gain_clicked = (float(x.uplift[0] / x.p_click[0]) for x in (alone, left, clicked))
    assert gain == pytest.approx(float(plain[0].uplift[0] / plain[0].p_click[0]), rel=1e-9)
    assert gain_left < (1 - 0.1 * carried) * gain
    assert gain_clicked > (1 + 0.1 * carried) * gain
    np.testing.assert_allclose([x.p_click[0] for x in (alone, left, clicked)], [x.p_click[0] for x in plain])


@pytest.mark.parametrize("carried", [0.0, 0.6])
def test_stage_of_caused_orders_says_what_a_click_adds(carried: float) -> None:
    """Where the stage order is of caused orders, a click gains its chance of all who would not order anyway; in a bundle from before, its chance less theirs."""
    organic, order = stage(-1.0), stage(-0.5)
    anyway, said = 1 / (1 + np.exp(1.0)), 1 / (1 + np.exp(0.5))
    stages = {"organic": organic, "order": order}

    caused, before = (
        draw(model=funnel(stages, order_is_caused=is_caused, order_interest=carried)) for is_caused in (True, False)
    )

    assert caused.uplift[0] / caused.p_click[0] == pytest.approx((1 - anyway) * said, rel=1e-9)
    assert before.uplift[0] / before.p_click[0] == pytest.approx(said - anyway, rel=1e-9)
    assert caused.forecasts is not None
    assert caused.forecasts.of_send(0).order[0] == pytest.approx(anyway + (1 - anyway) * said, abs=1e-6)


@pytest.mark.parametrize("carried", [0.0, 0.6])
def test_forecast_of_an_order_is_that_of_who_clicks(carried: float) -> None:
    """What corrections compare orders after a click with is the chance among those who click, given what came before."""
    model = funnel(order_interest=carried)
    found = [draw(after=[("email", 0.0)], made=m, model=model) for m in ([], [made("push", -2, -1)])]
    forecasts = [x.forecasts.of_send(0) for x in found if x.forecasts is not None]

    first, later = (np.array(f.order) for f in forecasts)
    assert first == pytest.approx(1 / (1 + np.exp(0.5)), abs=1e-6)
    assert np.all(later < first - 0.01) if carried else later == pytest.approx(first)


def test_made_before_reads_clicks_and_leaves_other_messages_out() -> None:
    """Sends of this message are read from the contacts with when they were noticed and whether they were clicked."""
    mine = replace(contact(NOW - 3 * HOUR, decision_id="decision-1"), seen_time=NOW - HOUR, click_time=NOW - HOUR)
    context = with_contacts(mine, contact(NOW - 2 * HOUR))

    assert made_before(context) == (made("push", -3, -1, is_clicked=True),)


def test_made_before_leaves_out_what_is_overdue() -> None:
    """A send whose delivery nobody confirmed in time may not have arrived; plans expect nothing of it."""
    mine = contact(NOW - 3 * HOUR, decision_id="decision-1")
    context = replace(with_contacts(mine), tried=("push",), overdue=("push",))

    assert made_before(context) == ()
    assert made_before(replace(context, overdue=("email",))) == (made("push", -3),)


def test_no_half_life_means_no_decay() -> None:
    """Without a half-life a send is worth the same whenever it is made; with one, waiting costs."""
    model = funnel({"click": stage(-1.0, relevance=(0.5, 0, 0, 0, 0)), "order": stage(-0.5, (1.0, 0, 0, 0, 0))})
    after = [("push", 0.0), ("push", 24.0)]

    lasts = draw(lasting(200), after, model=model)
    fades = draw(lasting(200, half_life=10), after, model=model)

    assert lasts.uplift[1] == pytest.approx(lasts.uplift[0], rel=1e-9)
    assert fades.uplift[0] < lasts.uplift[0]
    assert fades.uplift[1] < 0.5 * fades.uplift[0]


def test_tiny_half_life_stays_finite() -> None:
    """A message that lost its relevance long ago keeps a bounded log relevance, so that no score becomes infinite."""
    found = log_relevance(np.array([-5.0, 0.0, 1e6]), np.array([1.0, 1e-9, 1e-9]))

    assert found.tolist() == [0.0, 0.0, -30.0]


@pytest.mark.parametrize(
    ("hours", "of_first", "of_second"), [(1, 0.25, 0.0), (2, 1.0, 0.25), (3, 1.0, 1.0), (48, 1.0, 1.0)]
)
def test_send_within_the_hour_is_of_two_ages_in_each_later_one(hours: int, of_first: float, of_second: float) -> None:
    """A send at three quarters has a quarter of an hour at the rate of age 0 before the hour turns, and the rest after."""
    lag = replace(FADING, log_keep=(-1.0, -2.0, *[-40.0] * (len(FADING.log_keep) - 2)))

    found = draw(lasting(hours), [("push", 0.75)], model=funnel(lags={"push": lag}, delivered={}))

    assert found.p_notice[0] == pytest.approx(1 - np.exp(-of_first * np.exp(-1.0) - of_second * np.exp(-2.0)))


@pytest.mark.parametrize(("minutes", "lives"), [(0, 15), (20, 30), (40, 10), (50, 60)])
def test_message_that_expires_within_the_hour_has_no_longer(minutes: int, lives: int) -> None:
    """A message that lives some minutes is noticed at the rate of those minutes, even over the turn of an hour."""
    context = lasting(lives / 60, decide_time=NOW + timedelta(minutes=minutes))

    found = draw(context, model=funnel(lags={"push": STEADY}, delivered={}))

    assert found.p_notice[0] == pytest.approx(1 - np.exp(-np.exp(-3.0) * lives / 60), rel=1e-9)


def test_nothing_is_noticed_more_than_three_days_after() -> None:
    """Whenever within the hour a message is sent, it is noticed for 72 hours and no longer, however long it lives."""
    lag = replace(STEADY, log_keep=tuple(-6.0 for _ in STEADY.log_keep))
    for after in (0.0, 0.4):
        found = draw(lasting(300), [("push", after), ("email", 200.0)], model=funnel(lags={"push": lag}, delivered={}))

        assert found.p_notice[0] == pytest.approx(1 - np.exp(-AGES * np.exp(-6.0)), rel=1e-9)


@pytest.mark.parametrize("days", [0, 3, 6, 20, 59])
def test_send_far_ahead_is_worth_as_much_as_one_now(days: int) -> None:
    """A message without decay is worth the same sent now or weeks ahead, alone or beside one sent now."""
    context = lasting(60 * 24 + 80)
    now = draw(context).uplift[0]

    alone = draw(context, [("push", 24.0 * days)])
    beside = draw(context, [("push", 0.0), ("push", 24.0 * days)])

    assert alone.uplift[0] == pytest.approx(now, rel=1e-9)
    np.testing.assert_allclose(beside.uplift, now, rtol=1e-9)
    assert beside.worth.shape[2] <= 260


def test_later_steps_far_ahead_are_planned_by_the_same_formula() -> None:
    """Where cells are of six hours and of a day, the planner still agrees with the formula, and waits at least as long as asked."""
    after = [(channel, 24.0 * day + hour) for channel in EVERY for day in (0, 6, 20, 40) for hour in (0.3, 5.0)]
    found = draw(lasting(60 * 24), after)
    m = len(after)
    prices = Prices(micros=np.full(m, 1e6), is_paid=np.zeros(m, dtype=bool), ready=found.ready(2))

    cascades = value_cascades(found, prices, 3)

    for first in range(m):
        steps = (first, *cascades.following(first))
        assert len(steps) > 1 or after[first][1] >= 24 * 40
        assert cascades.value[first] == pytest.approx(value_sequence(found, prices, steps), rel=1e-12, abs=1e-3)
        for one, other in itertools.pairwise(steps):
            assert after[other][1] - after[one][1] > 1


@given(hours=st.integers(1, 1600))
def test_cells_are_ever_longer_and_few(hours: int) -> None:
    """Cells begin at 0, are of an hour for five days, never shrink, and two months have fewer than 250."""
    begins = cell_begins(hours)
    lengths = np.diff(begins)

    assert begins[0] == 0
    assert begins[-1] < hours
    assert np.all(lengths[: 5 * 24 - 1] == 1)
    assert np.all(np.diff(lengths) >= 0)
    assert len(begins) < 250


def test_ready_counts_hours_and_not_cells() -> None:
    """A wait is kept in hours where cells are of an hour, and rounded up to the next cell where they are longer."""
    found = draw(lasting(60 * 24), [("push", 0.0), ("push", 118.0), ("push", 121.0), ("push", 30 * 24.0)])
    assert found.begin is not None

    ready = found.ready(3)

    assert found.start[0] == 0
    assert ready[0] == 3
    assert found.begin[ready[1]] == 126
    assert found.begin[ready[2]] == 126
    assert found.begin[ready[3]] >= 30 * 24 + 3


def test_message_asked_for_weeks_ahead_is_sent_by_value() -> None:
    """A first send that may only be made in a fortnight is worth what it would be worth today, with curves and without."""
    later = NOW + 14 * DAY
    message = replace(CONTEXT.message, earliest_time=later, expire_time=later + 2 * DAY)
    context = replace(CONTEXT, not_before=later, message=message)
    bundle = bundle_of({"push": 0.2, "email": 0.1})

    found = decide(context, RULES, bundle).distribution
    today = decide(replace(context, decide_time=later), RULES, bundle).distribution

    assert found is not None
    assert today is not None
    np.testing.assert_allclose(found.table.plan_micros, today.table.plan_micros, rtol=1e-9)
    sends = sends_of(list_actions(find_eligible(context, RULES).eligible))
    curves = MODEL.curves(context, sends, (), MARGIN, HARM)
    nearer = MODEL.curves(replace(context, decide_time=later), sends, (), MARGIN, HARM)
    np.testing.assert_allclose(curves.uplift, nearer.uplift, rtol=1e-12)
    assert (curves.uplift > 0).all()


def test_what_was_made_loses_the_part_of_this_hour_that_is_over() -> None:
    """At a quarter to, a send of the hour before has a quarter of this hour left, not all of it."""
    quarter_to = lasting(0.25, decide_time=NOW + timedelta(minutes=45))
    model = funnel(lags={"push": STEADY}, delivered={})

    found = draw(quarter_to, [("email", 0.0)], [made("push", -1)], model)

    at_once = draw(lasting(0.25), [("push", 0.0)], model=model)
    np.testing.assert_allclose(found.pending_worth.sum(), at_once.worth.sum(), rtol=1e-9)


def test_what_is_to_be_made_is_pending_from_its_time_on() -> None:
    """A step sent only after the decision can still fail to arrive, and nobody reacts to it before it is sent."""
    found = draw(lasting(72), [("email", 0.0)], [made("push", 10.0)])
    same = draw(lasting(72), [("email", 0.0), ("push", 10.0)])

    np.testing.assert_allclose(found.pending_before, same.before[1], rtol=1e-12)
    np.testing.assert_allclose(found.pending_worth, same.worth[1], rtol=1e-12)
    assert np.all(found.pending_before[:, :11] == 1)


def test_what_was_made_and_arrived_is_not_discounted_again() -> None:
    """A send that was made and not reported lost has arrived."""
    found = draw(lasting(72), [("email", 0.0)], [made("push", 0.0)])

    same = draw(lasting(72), [("email", 0.0), ("push", 0.0)], model=funnel(delivered={}))
    np.testing.assert_allclose(found.pending_worth, same.worth[1], rtol=1e-12)


def test_several_pending_sends_are_one_by_the_product_rule() -> None:
    """Of several sends still open, the worth in a cell is that of each times that nobody reacted to the others."""
    sends = [made("push", -1), made("sms", -5), made("email", -9)]

    together = draw(lasting(72), [("push", 0.0)], sends)

    each = [draw(lasting(72), [("push", 0.0)], [one]) for one in sends]
    before = np.array([one.pending_before for one in each])
    worth = sum(one.pending_worth * np.delete(before, i, axis=0).prod(axis=0) for i, one in enumerate(each))
    np.testing.assert_allclose(together.pending_before, before.prod(axis=0), rtol=1e-12)
    np.testing.assert_allclose(together.pending_worth, worth, rtol=1e-9, atol=1e-6)


def test_send_of_long_ago_is_over() -> None:
    """What was sent more than three days ago is not waited for."""
    found = draw(lasting(72), [("email", 0.0)], [made("push", -80)])

    assert np.all(found.pending_before == 1)
    assert not found.pending_worth.any()


def test_no_sends_still_tell_what_is_pending_and_what_would_be_ordered_anyway() -> None:
    """Without a channel left there are no curves, but the organic chance and what was made before stay known."""
    nothing = draw(after=())
    waiting = draw(after=(), made=[made("push", -1)])

    assert nothing.worth.shape[0] == nothing.uplift.shape[0] == 0
    assert nothing.p_organic == pytest.approx(1 / (1 + np.exp(4.0)))
    assert waiting.pending_worth.sum() > 0


def test_unknown_channel_has_the_shared_weights_and_the_usual_lag() -> None:
    """A channel that the log did not hold is scored as all are, notices at the geometric mean of the known rates, and follows the rhythm."""
    lags = {"push": STEADY, "sms": replace(STEADY, log_keep=tuple(x - 2.0 for x in STEADY.log_keep))}
    model = funnel({"notice": stage(0.0, push=1.0)}, lags=lags, delivered={"push": 0.5})

    found = draw(lasting(1), [("fax", 0.0), ("push", 0.0)], model=model)

    assert found.p_notice[0] == pytest.approx(1 - np.exp(-np.exp(-4.0)))
    assert found.p_notice[1] == pytest.approx(0.5 * (1 - np.exp(-np.exp(-2.0))))


def test_organic_chance_does_not_depend_on_the_channels_asked_for() -> None:
    """What is ordered anyway is of the context alone: neither the first channel's features nor its own weights enter."""
    columns = (
        Column(name="channel", kind="category", categories=("email", "push")),
        Column(name="channel_contacts_30d", kind="number"),
    )
    organic = stage(-4.0)
    organic = replace(organic, weights=((-4.0, 3.0, 0.5), (1.0, 0.0, 0.0), (-1.0, 2.0, 0.0)))
    others = replace(organic, weights=((-1.0, 0.0, 0.0),) * 3)
    model = funnel(
        dict.fromkeys(("notice", "click", "order", "unsubscribe"), others) | {"organic": organic},
        columns=columns,
        scaling=Scaling(means=(0.0, 0.0), deviations=(1.0, 1.0), has_missing=(False, True)),
    )
    context = with_contacts(*(contact(NOW - DAY, channel="push") for _ in range(3)))

    found = [draw(context, after, model=model).p_organic for after in ([("push", 0.0)], [("email", 0.0)], [])]

    assert found == pytest.approx([1 / (1 + np.exp(3.5))] * 3)


def test_trees_add_to_the_scores_of_their_stage() -> None:
    """A stage with trees is scored by linear part and trees together, for channels and for the context alone."""

    class Trees:
        tree_count = 1

        def raw_scores(self, matrix: FloatArray) -> FloatArray:
            return np.where(np.isnan(matrix[:, 0]), 2.0, 0.5)

    trees: dict[str, Booster] = {"organic": Trees(), "notice": Trees()}  # type: ignore[dict-item]  # scripted

    found = FunnelModel(MODEL.description, trees)

    plain = funnel({"notice": stage(0.5), "organic": stage(-2.0)})
    for one, other in zip(draw(model=found).worth, draw(model=plain).worth, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert draw(model=found).p_organic == pytest.approx(1 / (1 + np.exp(2.0)))


@pytest.mark.parametrize(
    ("factors", "of", "ratio"),
    [
        ({"deliver": 0.5}, "p_notice", 0.5),
        ({"deliver": 9.0}, "p_notice", 1 / 0.9),
        ({"click": 0.5}, "p_click", 0.5),
        ({"order": 0.5}, "uplift", 0.5),
        ({"unsubscribe": 0.5}, "p_unsubscribe", 0.5),
    ],
)
def test_factors_multiply_their_stage_and_channel_alone(factors: dict[str, float], of: str, ratio: float) -> None:
    """A correction of push multiplies that stage of push, up to certainty, and leaves e-mail as it was."""
    after = [("push", 0.0), ("email", 0.0)]

    plain, corrected = draw(after=after), draw(after=after, factors=factors)

    assert getattr(corrected, of)[0] == pytest.approx(ratio * getattr(plain, of)[0], rel=1e-9)
    assert getattr(corrected, of)[1] == getattr(plain, of)[1]


def test_notice_factor_multiplies_the_hazard() -> None:
    """Twice the attention squares the chance that nobody notices."""
    model = funnel(delivered={})

    plain, twice = draw(model=model), draw(model=model, factors={"notice": 2.0})

    assert 1 - twice.p_notice[0] == pytest.approx((1 - plain.p_notice[0]) ** 2)


def test_effect_of_a_click_never_passes_certainty() -> None:
    """However large the scale, a click cannot add more than what is missing to a certain order."""
    found = draw(model=funnel(scale=1000.0))

    assert found.p_organic + found.uplift[0] / found.p_click[0] <= 1 + 1e-12


def test_rhythm_moves_notices_to_the_hours_of_attention() -> None:
    """A reader of evenings notices a morning push in the evening; a channel of no power does not care."""
    evening = tuple(4.0 if hour % 24 >= 18 else 1e-9 for hour in range(168))
    rhythm = replace(MODEL.description.rhythm, weeks=(evening,))
    morning = datetime(2026, 11, 4, 5, tzinfo=UTC)  # 8 in Moscow

    follows = draw(lasting(9, decide_time=morning), model=funnel(rhythm=rhythm))
    reaches = draw(lasting(12, decide_time=morning), model=funnel(rhythm=rhythm))
    careless = draw(
        lasting(9, decide_time=morning), model=funnel(rhythm=rhythm, lags={"push": replace(FADING, power=0.0)})
    )

    assert follows.p_notice[0] < 0.05
    assert reaches.p_notice[0] > 10 * follows.p_notice[0]
    assert careless.p_notice[0] > 10 * follows.p_notice[0]


def test_zone_that_does_not_exist_is_refused() -> None:
    """Time zones are checked where they come in; one that gets here anyway is named."""
    with pytest.raises(ZoneInfoNotFoundError, match="Mars/Olympus"):
        draw(replace(CONTEXT, customer=replace(CUSTOMER, time_zone="Mars/Olympus")))


@pytest.mark.parametrize(("window_hours", "until"), [(24.0, 24), (720.0, 720)])
def test_forecast_says_until_when_training_looked_for_orders(window_hours: float, until: int) -> None:
    """The window of orders is counted from the decision, whenever the send is."""
    found = draw(lasting(48), [("push", 5.0)], model=funnel(window_hours=window_hours)).forecasts
    assert found is not None

    assert found.of_send(0).order_until == math.floor(hours_of(CONTEXT.decide_time)) + until


SOME = st.tuples(
    CASES,
    st.sampled_from([2.0, 40.0, 200.0]),
    st.sampled_from([None, 6.0]),
    st.sampled_from(["Europe/Moscow", "Asia/Tokyo"]),
    st.booleans(),
    st.lists(st.sampled_from([made("email", -2.0), made("push", -3.0, -1.0), made("fax", 0.5)]), max_size=2),
    st.sampled_from([0.0, 0.6]),
)


@given(customers=st.lists(SOME, min_size=1, max_size=5))
def test_curves_of_many_are_those_of_each(customers: list[tuple[object, ...]]) -> None:
    """Customers whose channels, sends, zones, grids and earlier sends differ get the curves to the bit that they get alone, in whatever company."""
    model = funnel({"click": stage(-1.0, (0.5, 0.1, 0.0, 0.2, 0.3))}, order_interest=0.7, order_is_caused=True)
    asked = [_asked(*customer) for customer in customers]  # type: ignore[arg-type]  # as SOME draws them

    together = [sketch.drawn() for sketch in model.sketch_each(asked, HARM)]

    for one, found in zip(asked, together, strict=True):
        alone = model.curves(one.context, one.sends, one.made, MARGIN, HARM)
        assert _as_bytes(found) == _as_bytes(alone)


def _asked(
    cases: list[tuple[str, float]],
    hours: float,
    half_life: float | None,
    zone: str,
    is_active: bool,
    before: list[Made],
    factor: float,
) -> Asked:
    context = lasting(hours, half_life=half_life)
    now = hours_of(context.decide_time)
    active = tuple(range(int(now) - 50, int(now), 7)) if is_active else ()
    customer = replace(context.customer, time_zone=zone, active_hours=active)
    corrections = {"notice": {"push": Factor(factor)}, "order": {"email": Factor(2.0)}} if factor else {}
    return Asked(
        context=replace(context, customer=customer, factors=corrections),
        sends=[(channel, now + min(after, hours)) for channel, after in cases],
        made=before,
        margin_micros=MARGIN,
    )


def _as_bytes(found: Curves) -> tuple[object, ...]:
    """Return all that is known of curves, to compare them to the bit."""
    assert found.forecasts is not None
    arrays = [found.start, found.worth, found.before, found.weights, found.pending_worth, found.pending_before]
    chances = [found.uplift, found.p_unsubscribe, found.p_notice, found.p_click]
    forecasts = [found.forecasts.of_send(place) for place in range(len(found.channel))]
    return found.channel, found.p_organic, *(array.tobytes() for array in (*arrays, *chances)), *forecasts


def test_a_sketch_is_drawn_as_often_as_it_is_asked() -> None:
    """What is drawn in a room holds until the next is drawn in it; the sketch stays as it was, and so do its parts."""
    now = hours_of(CONTEXT.decide_time)
    sends = [("push", now), ("email", now + 3), ("sms", now + 6)]
    (sketch,) = MODEL.sketch_each([Asked(context=CONTEXT, sends=sends, margin_micros=MARGIN)], HARM)
    expected = sketch.drawn()
    kept = np.array([True, False, True])

    with Room.lent() as room, Room.lent() as other:
        part = sketch.keep(kept).drawn(room)
        assert part.worth.tobytes() == expected.worth[kept].tobytes()
        assert part.channel == ("push", "sms")
        whole = sketch.drawn(room)
        assert whole.before.tobytes() == expected.before.tobytes()
        sketch.keep(kept).drawn(other)
        assert whole.before.tobytes() == expected.before.tobytes()
    assert sketch.ready(2).tobytes() == expected.ready(2).tobytes()


def test_curves_kept_are_those_of_the_sends_kept() -> None:
    """Taking sends out leaves the curves of the others as they were."""
    found = draw(lasting(48), [("push", 0.0), ("email", 3.0), ("sms", 6.0)])

    kept = found.keep(np.array([True, False, True]))

    assert kept.channel == ("push", "sms")
    np.testing.assert_array_equal(kept.start, found.start[[0, 2]])
    np.testing.assert_array_equal(kept.worth, found.worth[[0, 2]])
    np.testing.assert_array_equal(kept.p_click, found.p_click[[0, 2]])


@given(
    uplift=st.lists(st.floats(-0.3, 0.6), min_size=3, max_size=3),
    after=st.lists(st.floats(0, 900), min_size=3, max_size=3),
)
def test_plain_curves_add_up_to_the_uplift_they_were_given(uplift: list[float], after: list[float]) -> None:
    """Where only the uplift is known, worth adds up to margin x uplift less harm, wherever on the grid the sends are."""
    context, effect, refused = lasting(60 * 24), np.array(uplift), np.full(3, 0.01)
    now = hours_of(context.decide_time)

    found = plain_curves(
        context,
        [(c, now + h) for c, h in zip(EVERY, after, strict=True)],
        effect,
        refused,
        np.full(3, 4.0),
        MARGIN,
        0.0,
    )

    positive = effect > 1e-9
    np.testing.assert_allclose(found.worth.sum(axis=(1, 2))[positive], MARGIN * effect[positive], rtol=0.02)
    np.testing.assert_allclose(found.worth.sum(axis=(1, 2))[effect < 0], MARGIN * effect[effect < 0], rtol=1e-9)
    assert np.all((found.before >= -1e-12) & (found.before <= 1))
    assert np.all(np.diff(found.before, axis=2) <= 1e-12)


def test_plan_of_a_message_of_two_months_reaches_its_end() -> None:
    """With slots up to the expiry of a message that lives 60 days, the last slots are worth sending too."""
    rules = replace(RULES, timing=replace(RULES.timing, horizon_hours=60 * 24))
    context = lasting(60 * 24)
    found = decide(context, rules, bundle_of({"push": 0.2, "email": 0.1})).distribution
    assert found is not None

    cascades = best_cascades(context, rules, found.table)

    last = [i for i, a in enumerate(a for a in found.table.actions if a.send_time) if a.channel == "push"][-1]
    assert cascades.alone[last] == pytest.approx(cascades.alone.max(), rel=0.05)
