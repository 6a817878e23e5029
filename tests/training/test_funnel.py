"""The funnel: effects too rare for one model, learned stage by stage through what leads to them."""

from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.booster import Booster
from models.curves import Curves, FunnelModel, Made
from models.features import NO_SEND, Column
from tests.training.examples import NOW, context_at, dataset_of
from training.dataset import Dataset
from training.fit import fit, is_clearly_better
from training.funnel import FittedFunnel, fit_funnel
from training.grow import Hyperparameters, as_no_send

HYPER = Hyperparameters(trees=150, seed=3)
CHANNELS = (NO_SEND, "push", "sms")
REACH = {"push": (0.20, 0.60), "sms": (0.50, 0.50)}
"""P(noticed within two days | arrived) of those who are not attached to the app, and of those who are."""
MEAN_LAG = {"push": 10.0, "sms": 2.0}
"""Hours; what is noticed is noticed after an exponential lag of this mean, cut off at two days."""
ARRIVES = {"push": 0.80, "sms": 1.0}
CLICKS = {"push": 0.30, "sms": 0.15}
"""P(clicked | noticed)."""
ORGANIC, OF_CLICKED = 0.03, 0.30
"""P(order) anyway, and of those who clicked."""
REFUSES = {"push": 0.02, "sms": 0.10}
"""P(unsubscribe | noticed, not clicked)."""
DECISIONS = 24_000
NOW_HOURS = NOW.timestamp() / 3600


def shop(
    decisions: int = DECISIONS,
    seed: int = 0,
    *,
    of_clicked: float = OF_CLICKED,
    fade: float = 0.0,
    lifetime_hours: float = 48.0,
) -> Dataset:
    """Decisions an hour apart, channels drawn evenly, by the truth above; a click is as likely as the relevance left to the power of `fade`."""
    rng = np.random.default_rng(seed)
    channel, attached = rng.integers(3, size=decisions), rng.integers(2, size=decisions)

    def of(truth: dict[str, float]) -> NDArray[np.float64]:
        return np.array([0.0, truth["push"], truth["sms"]])[channel]

    half_life = np.where(rng.random(decisions) < 0.5, 6.0, np.inf) if fade else np.full(decisions, np.inf)
    arrived = rng.random(decisions) < of(ARRIVES)
    reach = np.array([(0.0, 0.0), REACH["push"], REACH["sms"]])[channel, attached]
    lag = _cut_exponential(rng, np.maximum(of(MEAN_LAG), 1.0))
    seen = arrived & (rng.random(decisions) < reach) & (lag < lifetime_hours)
    clicked = seen & (rng.random(decisions) < of(CLICKS) * np.exp2(-lag / half_life) ** fade)
    refused = seen & ~clicked & (rng.random(decisions) < of(REFUSES))
    response = rng.random(decisions) < np.where(clicked, of_clicked, ORGANIC)
    return dataset_of(
        columns=(
            Column(name="channel", kind="category", categories=CHANNELS),
            Column(name="x.attached", kind="number"),
            Column(name="x.noise", kind="number"),
        ),
        matrix=np.column_stack([channel, attached, rng.normal(size=decisions)]).astype(np.float64),
        decide_time=np.int64(1_700_000_000_000_000) + 3_600_000_000 * np.arange(decisions, dtype=np.int64),
        channel=np.array(CHANNELS)[channel],
        propensity=np.full(decisions, 1 / 3),
        response=response.astype(np.float64),
        seen_hours=np.where(seen, lag, np.nan),
        clicked_hours=np.where(clicked, lag + 0.02, np.nan),
        unsubscribed=refused.astype(np.float64),
        delivered=(arrived | (channel == 0)).astype(np.float64),
        lifetime_hours=lifetime_hours,
        half_life_hours=half_life,
        digest=f"shop-{decisions}-{seed}",
    )


def _cut_exponential(rng: np.random.Generator, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw exponential lags that are less than two days."""
    most = 1 - np.exp(-48 / mean)
    found: NDArray[np.float64] = -mean * np.log1p(-rng.random(len(mean)) * most)
    return found


def later_of(data: Dataset) -> NDArray[np.bool_]:
    return np.arange(len(data)) >= len(data) * 3 // 4


def fitted(data: Dataset, said: list[str] | None = None) -> FittedFunnel:
    found = fit_funnel(data, later_of(data), HYPER, (said if said is not None else []).append)
    assert found is not None
    return found


def model_of(funnel: FittedFunnel) -> FunnelModel:
    return FunnelModel(funnel.description, {stage: Booster(text) for stage, text in funnel.texts.items()})


def drawn(
    model: FunnelModel, channel: str, attached: int, *, within: float = 48.0, half_life: float | None = None
) -> Curves:
    """Return the curves of one send now, of a message that expires after so many hours."""
    context = context_at(NOW, "r", features={"attached": float(attached), "noise": 0.0})
    seconds = None if half_life is None else 3600 * half_life
    message = replace(context.message, expire_time=NOW + timedelta(hours=within), relevance_half_life_seconds=seconds)
    return model.curves(replace(context, message=message), [(channel, NOW_HOURS)], (), 1e6, 1e6)


@lru_cache(maxsize=1)
def learned_once() -> FittedFunnel:
    return fitted(shop())


@pytest.fixture
def learned() -> FittedFunnel:
    """What was learned of 24,000 decisions of the shop."""
    return learned_once()


@pytest.fixture
def model(learned: FittedFunnel) -> FunnelModel:
    return model_of(learned)


@pytest.mark.parametrize("attached", [0, 1])
@pytest.mark.parametrize("channel", ["push", "sms"])
def test_every_stage_is_recovered_by_channel_and_customer(model: FunnelModel, channel: str, attached: int) -> None:
    """What the curves say of a send is the truth of each stage, within five standard errors and what shrinking takes.

    A cell of channel and customer has 4,000 sends, at least 640 of them noticed and 190 clicked: five standard errors are 0.04 of P(noticed) and,
    relative, 0.37 of P(clicked) in the thinnest cell; of P(order | clicked), which all cells share, with some 1,200 clicks 0.066.
    """
    arrives, reach, click = ARRIVES[channel], REACH[channel][attached], CLICKS[channel]

    found = drawn(model, channel, attached)

    assert found.p_notice[0] == pytest.approx(arrives * reach, abs=0.04)
    assert found.p_click[0] == pytest.approx(arrives * reach * click, rel=0.3)
    assert found.uplift[0] == pytest.approx(arrives * reach * click * (OF_CLICKED - ORGANIC), rel=0.45)
    assert found.p_unsubscribe[0] == pytest.approx(arrives * reach * (1 - click) * REFUSES[channel], rel=0.45)
    assert found.p_organic == pytest.approx(ORGANIC, abs=0.01)


def test_rates_over_all_customers_are_recovered(learned: FittedFunnel, model: FunnelModel) -> None:
    """Over both sorts of customers each channel's rates are nearer still: 8,000 sends, at least 1,900 noticed and 500 clicked."""
    for channel in ("push", "sms"):
        both = [drawn(model, channel, attached) for attached in (0, 1)]
        reach = ARRIVES[channel] * np.mean(REACH[channel])
        notice = np.mean([found.p_notice[0] for found in both])
        click = np.mean([found.p_click[0] for found in both])
        assert notice == pytest.approx(reach, abs=0.025)
        assert click / notice == pytest.approx(CLICKS[channel], abs=0.05)
        assert learned.description.delivered[channel] == pytest.approx(ARRIVES[channel], abs=0.025)


@pytest.mark.parametrize("channel", ["push", "sms"])
@pytest.mark.parametrize("hours", [2, 6, 24])
def test_how_soon_a_channel_is_noticed_is_recovered(model: FunnelModel, channel: str, hours: int) -> None:
    """The share of a message's notices that come within some hours is that of the channel's lag, of some 2,000 to 4,000 notices."""
    mean = MEAN_LAG[channel]

    early = drawn(model, channel, 1, within=hours).p_notice[0] / drawn(model, channel, 1).p_notice[0]

    assert early == pytest.approx((1 - np.exp(-hours / mean)) / (1 - np.exp(-48 / mean)), abs=0.06)


def test_what_relevance_takes_from_a_click_is_learned() -> None:
    """Where clicks fade with relevance the curves of a message that fades hold fewer of them, of one that does not as many."""
    model = model_of(fitted(shop(12_000, fade=1.0)))
    ratio = [
        drawn(model, "push", 1, half_life=half_life).p_click[0] / drawn(model, "push", 1).p_click[0]
        for half_life in (6.0, 1e6)
    ]

    lag = _cut_exponential(np.random.default_rng(1), np.full(100_000, MEAN_LAG["push"]))
    assert ratio[0] == pytest.approx(np.exp2(-lag / 6).mean(), abs=0.12)
    assert ratio[1] == pytest.approx(1.0, abs=1e-3)


def test_notices_after_the_expiry_do_not_count() -> None:
    """What is noticed when the message is over was not noticed in time: a message of six hours is noticed as often as in six of a longer one."""
    data = shop(12_000)
    short = replace(data, expire_hours=data.begin_hours + 6.0)

    found = drawn(model_of(fitted(short)), "push", 1, within=6).p_notice[0]

    share = (1 - np.exp(-6 / MEAN_LAG["push"])) / (1 - np.exp(-48 / MEAN_LAG["push"]))
    assert found == pytest.approx(ARRIVES["push"] * REACH["push"][1] * share, abs=0.04)


def test_rare_effects_are_told_apart(learned: FittedFunnel) -> None:
    """With some hundred orders caused, the later part's chances are within a quarter of the true effects, on average over sends."""
    data = shop()
    later = data.take(later_of(data))
    codes, attached = later.matrix[:, 0].astype(int), later.matrix[:, 1].astype(int)
    reach = np.array([(0.0, 0.0), REACH["push"], REACH["sms"]])[codes, attached]
    per_notice = np.array([0.0, *(ARRIVES[c] * CLICKS[c] for c in ("push", "sms"))])[codes]
    truth = reach * per_notice * (OF_CLICKED - ORGANIC)
    sent = later.channel != NO_SEND

    error = np.abs(learned.p_later - ORGANIC - truth)[sent]

    assert error.mean() < 0.25 * truth[sent].mean()


def test_claimed_effect_is_scaled_to_what_randomisation_shows(learned: FittedFunnel) -> None:
    """Where those who click would have ordered anyway, the scale takes about half of the claimed effect back, after 12,000 decisions."""
    rng = np.random.default_rng(1)
    data = shop(12_000, of_clicked=ORGANIC)
    keen = rng.random(len(data)) < 0.2
    sent = data.channel != NO_SEND
    clicked = sent & (rng.random(len(data)) < np.where(keen, 0.6, 0.02))
    hours = np.where(clicked, 1.0, np.nan)
    response = (rng.random(len(data)) < np.where(keen, 0.25, 0.01)).astype(np.float64)
    confounded = replace(
        data,
        seen=clicked.astype(np.float64),
        seen_hours=hours,
        clicked=clicked.astype(np.float64),
        clicked_hours=hours,
        delivered=np.ones(len(data)),
        unsubscribed=np.zeros(len(data)),
        response=response,
    )

    claimed = fitted(confounded)

    assert learned.description.scale == pytest.approx(1.0, abs=0.35)
    assert claimed.description.scale < 0.6


@pytest.mark.parametrize("seed", [0, 2])
def test_click_adds_as_much_for_those_who_order_anyway(seed: int) -> None:
    """Customers who order anyway ten times as often are not believed to be moved by a click more, or less, than their being certain already says.

    A click adds 0.15 of what is left: 0.15 x 0.98 of one sort and 0.15 x 0.8 of the other. With some 240 clicks of each and one effect for both, what is believed of
    the two stays within 0.2 of that ratio.
    """
    data = shop(8_000, seed)
    rng = np.random.default_rng(seed)
    anyway = np.where(data.matrix[:, 1] > 0, 0.2, 0.02)
    response = rng.random(len(data)) < anyway + (1 - anyway) * np.where(data.clicked > 0, 0.15, 0.0)

    found = model_of(fitted(replace(data, response=response.astype(np.float64))))

    seldom, often = (drawn(found, "sms", who) for who in (0, 1))
    assert often.p_organic > 5 * seldom.p_organic
    ratio = (often.uplift[0] / often.p_click[0]) / (seldom.uplift[0] / seldom.p_click[0])
    assert ratio == pytest.approx(0.8 / 0.98, abs=0.2)


def test_undelivered_sends_do_not_lower_the_scale(learned: FittedFunnel) -> None:
    """What does not arrive is in the chance of arriving alone: with half of all sends lost the scale stays what it was."""
    data = shop()
    rng = np.random.default_rng(2)
    sent = data.channel != NO_SEND
    lost = sent & (rng.random(len(data)) < 0.5)
    organic = (rng.random(len(data)) < ORGANIC).astype(np.float64)
    half = replace(
        data,
        delivered=np.where(lost, 0.0, data.delivered),
        seen=np.where(lost, 0.0, data.seen),
        seen_hours=np.where(lost, np.nan, data.seen_hours),
        clicked=np.where(lost, 0.0, data.clicked),
        clicked_hours=np.where(lost, np.nan, data.clicked_hours),
        unsubscribed=np.where(lost, 0.0, data.unsubscribed),
        response=np.where(lost, organic, data.response),
    )

    found = fitted(half)

    assert found.description.delivered["sms"] == pytest.approx(0.5, abs=0.05)
    assert found.description.scale == pytest.approx(learned.description.scale, abs=0.3)
    uplift = drawn(model_of(found), "sms", 1).uplift[0]
    assert uplift == pytest.approx(0.5 * REACH["sms"][1] * CLICKS["sms"] * (OF_CLICKED - ORGANIC), rel=0.5)


def test_no_send_has_the_organic_chance_whatever_the_channel_would_have_been(model: FunnelModel) -> None:
    """The organic stage looks at the context alone, so its chance is the same for every action."""
    rows = np.array([[channel, 1.0, 0.3] for channel in (0.0, 1.0, 2.0, np.nan)])

    assert len(set(model.scores("organic", rows).tolist())) == 1


def test_funnel_never_takes_from_a_send_and_never_passes_one(learned: FittedFunnel) -> None:
    """However extreme the stages and the context, a send is at least as likely to be followed by an order as no send, and at most certain."""
    rng = np.random.default_rng(0)
    context = context_at(NOW, "r")
    sends = [(channel, NOW_HOURS + hours) for channel in ("push", "sms", "unheard_of") for hours in (0, 0.5, 7, 40)]
    made = (
        Made(channel="push", send_hours=NOW_HOURS - 3),
        Made(channel="sms", send_hours=NOW_HOURS - 9, noticed_hours=NOW_HOURS - 8),
    )
    for _ in range(50):
        stages = {
            name: replace(
                stage,
                has_trees=False,
                weights=tuple(tuple(rng.normal(0, 20, len(row)).tolist()) for row in stage.weights),
            )
            for name, stage in learned.description.stages.items()
        }
        features = {"attached": float(rng.normal(0, 1e6)), "noise": float(rng.normal(0, 1e-6))}
        model = FunnelModel(replace(learned.description, stages=stages, scale=1.0), {})

        found = model.curves(replace(context, features=features), sends, made, 1e6, 1e6)

        assert np.all(found.uplift >= 0)
        assert np.all(found.p_organic + found.uplift <= 1 + 1e-9)
        assert np.all((found.before >= -1e-12) & (found.before <= 1))
        assert np.all(np.isfinite(found.worth))
        assert np.all(np.isfinite(found.pending_worth))


def without(data: Dataset, *names: str) -> Dataset:
    """Return the log as if nobody had ever done these things."""
    nothing, never = np.zeros(len(data)), np.full(len(data), np.nan)
    changes = dict.fromkeys(names, nothing) | {f"{name}_hours": never for name in names if f"{name}_hours" in _TIMED}
    return replace(data, **changes)


_TIMED = ("seen_hours", "clicked_hours")


@pytest.mark.parametrize("kept", [0, 199])
def test_log_in_which_too_few_were_seen_has_no_funnel(kept: int) -> None:
    """With less than 200 sends seen there is no funnel, and the log's lack is said."""
    data = shop(6_000)
    few = np.isin(np.arange(len(data)), np.flatnonzero(data.seen)[:kept])
    thin = replace(
        without(data, "clicked"), seen=few.astype(np.float64), seen_hours=np.where(few, data.seen_hours, np.nan)
    )
    said: list[str] = []

    assert fit_funnel(thin, later_of(thin), HYPER, said.append) is None
    assert said == [f"no funnel: {kept} sends were seen or clicked, 200 are needed"]


def test_seen_stands_for_a_click_where_nobody_clicked() -> None:
    """Without clicks noticing is what orders are learned from: the stage says so, and effects are those of noticing."""
    data = without(shop(12_000), "clicked")
    said: list[str] = []

    found = fitted(data, said)

    note = "0 clicks are too few, 10 are needed; being noticed stands for a click"
    assert found.description.notes["click"] == note
    assert f"stage click: {note}" in said
    curves = drawn(model_of(found), "push", 1)
    assert curves.p_click[0] == pytest.approx(curves.p_notice[0], rel=0.03)
    truth = ARRIVES["push"] * REACH["push"][1] * CLICKS["push"] * (OF_CLICKED - ORGANIC)
    assert curves.uplift[0] == pytest.approx(truth, rel=0.5)


@pytest.mark.parametrize(
    ("stage", "change", "events"),
    [("order", {"response": 0.0}, 0), ("organic", {"response": 0.0}, 0), ("unsubscribe", {"unsubscribed": 0.0}, 0)],
)
def test_stage_without_enough_to_learn_from_is_noted_and_stands_for_its_mean(
    stage: str, change: dict[str, float], events: int
) -> None:
    """A stage with less than 10 events says the mean rate of everybody; the note names the stage, what is there, and what is needed."""
    data = shop(4_000)
    (name, value), *_ = change.items()
    said: list[str] = []

    found = fitted(replace(data, **{name: np.full(len(data), value)}), said)  # type: ignore[arg-type]  # an array

    note = found.description.notes[stage]
    assert note.startswith(f"{events} events are too few (10 are needed")
    assert f"stage {stage}: {note}" in said
    assert stage not in found.texts
    weights = np.array(found.description.stages[stage].weights)
    assert np.count_nonzero(weights) == 1
    assert not found.description.stages[stage].has_trees


def test_a_dozen_events_tell_who_orders_from_who_does_not() -> None:
    """With some twelve orders after clicks, all of them by those attached to the app, the stage of orders is fitted and tells these from the others."""
    data = shop(4_000)
    attached = data.matrix[:, 1] > 0
    buyers = np.flatnonzero(attached & (data.clicked > 0) & (np.arange(len(data)) % 8 == 0))
    response = np.where(data.clicked > 0, 0.0, data.response)
    response[buyers] = 1.0
    assert 10 <= len(buyers) < 30

    found = fitted(replace(data, response=response))

    assert "order" not in found.description.notes
    of_others, of_attached = (
        float(curves.uplift[0] / curves.p_click[0])
        for curves in (drawn(model_of(found), "push", who) for who in (0, 1))
    )
    assert of_attached > 2 * of_others


def test_order_without_a_click_by_anybody_still_claims_nothing() -> None:
    """Where nobody who clicked ever ordered, the effect of every send is next to nothing."""
    data = shop(6_000)
    honest = replace(data, response=np.where(data.clicked > 0, 0.0, data.response))

    found = fitted(honest)

    assert "order" in found.description.notes
    assert drawn(model_of(found), "push", 1).uplift[0] < 0.002


def test_notices_of_the_earlier_part_alone_leave_the_usual_pace() -> None:
    """Where the later part tells of no notice, the stage says the same of everybody, and the curves keep the rate of the whole."""
    data = shop(12_000)
    told = ~later_of(data)
    half = replace(
        data,
        seen=data.seen * told,
        seen_hours=np.where(told, data.seen_hours, np.nan),
        clicked=data.clicked * told,
        clicked_hours=np.where(told, data.clicked_hours, np.nan),
        unsubscribed=data.unsubscribed * told,
    )

    found = fitted(half)

    assert {"notice", "click", "order"} <= set(found.description.notes)
    model = model_of(found)
    for channel in ("push", "sms"):
        rate = half.seen[half.channel == channel].mean()
        arrived = half.delivered[half.channel == channel].mean()
        assert drawn(model, channel, 1).p_notice[0] == pytest.approx(rate, abs=0.03 + 0.05 * arrived)


def test_log_that_teaches_every_stage_has_no_notes(learned: FittedFunnel) -> None:
    """Where every stage has enough, nothing is noted."""
    assert learned.description.notes == {}


def test_channel_with_few_sends_keeps_the_pace_of_all() -> None:
    """A channel with less than 100 sends is noticed as the others are; one that the log never held draws curves too."""
    data = shop(12_000)
    few = np.flatnonzero(data.channel == "sms")[60:]
    kept = np.ones(len(data), dtype=bool)
    kept[few] = False

    found = fitted(data.take(kept))

    lags = found.description.lags
    assert set(lags) == {"push", "sms"}
    sms, push = drawn(model_of(found), "sms", 1), drawn(model_of(found), "push", 1)
    assert 0.2 * push.p_notice[0] < sms.p_notice[0] < 3 * push.p_notice[0]
    assert 0 < drawn(model_of(found), "unheard_of", 1).p_notice[0] < 1


def test_same_data_give_the_same_funnel() -> None:
    """Fitting twice gives the same funnel, number by number, and the same trees."""
    data = shop(6_000)
    one, other = fitted(data), fitted(data)

    assert one.description == other.description
    assert one.texts == other.texts


def test_funnel_serves_unless_the_one_model_is_clearly_better() -> None:
    """Log loss of rare orders hardly differs, so the funnel serves; a one model that is far nearer takes over."""
    data = shop(8_000)
    y = data.response

    found = fit(data, HYPER, "shop", lambda _: None)

    assert found.funnel is not None
    assert found.funnel.scale == found.metrics["funnel.scale"]
    assert {"later.logloss_of_funnel", "later.logloss_of_one_model", "funnel.notice.loss"} <= set(found.metrics)
    assert is_clearly_better(y, np.where(y > 0, 0.9, 0.1), np.full(len(y), 0.5))
    assert not is_clearly_better(y, np.full(len(y), 0.03), np.full(len(y), 0.03))


@pytest.mark.parametrize(("baseline", "effect", "serves"), [(0.2, 1.0, True), (1.0, 40.0, False)])
def test_funnel_is_judged_by_what_it_says_that_sends_add(
    monkeypatch: pytest.MonkeyPatch, baseline: float, effect: float, serves: bool
) -> None:
    """A funnel far off in who orders anyway still serves; one whose effects are far off makes way for the one model."""

    def far_off(*arguments: Any) -> FittedFunnel | None:
        found = fit_funnel(*arguments)
        assert found is not None
        return replace(found, p_later=baseline * found.p_later, effect_later=effect * found.effect_later)

    monkeypatch.setattr("training.fit.fit_funnel", far_off)

    assert (fit(shop(8_000), HYPER, "shop", lambda _: None).funnel is not None) == serves


def test_rows_without_a_send_keep_the_context_alone() -> None:
    """Had nothing been sent, the channel is none, what is of a channel or a time is missing, and the context is as it was."""
    columns = (
        Column(name="x.attached", kind="number"),
        Column(name="channel", kind="category", categories=("push", NO_SEND)),
        Column(name="local_hour", kind="number"),
        Column(name="channel_contacts_30d", kind="number"),
        Column(name="contacts_7d", kind="number"),
    )

    found = as_no_send(columns, np.array([[7.0, 0.0, 13.0, 2.0, 5.0]]))

    np.testing.assert_array_equal(found, [[7.0, 1.0, np.nan, np.nan, 5.0]])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_trees_are_left_out_where_a_line_says_it_all(seed: int) -> None:
    """In small shops whose law a line can say, no stage has trees, however well some happen to do on the later part."""
    assert not fitted(shop(4000, seed)).texts


def test_trees_are_grown_where_a_line_says_nothing() -> None:
    """Where who clicks lies at both ends of a feature, and not on one side of it, the stage of clicks has trees."""
    data = shop(8000)
    rng = np.random.default_rng(0)
    far = (data.clicked > 0) ^ (rng.random(len(data)) < 0.1)
    ends = rng.choice([-1.0, 1.0], size=len(data)) * np.where(far, 2.0, 0.2)

    funnel = fitted(replace(data, matrix=np.column_stack([data.matrix[:, :2], ends])))

    assert "click" in funnel.texts
