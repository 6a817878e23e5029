"""models.correction: sums of what was observed and expected, and the factors that follow from them."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.correction import (
    CLICK,
    DELIVER,
    GROUP_EDGES,
    NOTICE,
    ORDER,
    ORDER_HOURS,
    REPORT_HOURS,
    SETTLE_HOURS,
    TRIAL_STAGES,
    UNIT,
    UNSUBSCRIBE,
    Cell,
    Correction,
    Corrections,
    Factor,
    Forecast,
    Happenings,
    Sums,
    Trials,
    cells,
    change,
    factors_of,
    find_change,
    happenings,
    trials,
)
from models.decide import decide
from models.explain import explain
from models.record import context_from_json, context_to_json
from tests.unit.examples import CONTEXT, RULES, bundle_of

HOUR = 500_000
"""Hours since 1970 at which sends are made."""
FORECAST = Forecast(
    send_hour=HOUR,
    deliver=0.98,
    notice=(0.2, 0.1, 0.1, 0.2, 0.2, 0.2, 0.1, 0.05),
    click=(0.3, 0.28, 0.26, 0.24, 0.22, 0.2, 0.18, 0.16),
    order=(0.2, 0.19, 0.18, 0.17, 0.16, 0.15, 0.14, 0.13),
    unsubscribe=0.01,
)
HALF_LIFE_HOURS = 14 * 24


def cell(stage: str = NOTICE, hour: int = HOUR, kind: str = "cart", step: int = 1, channel: str = "push") -> Cell:
    return Cell("bundle", stage, channel, kind, step, hour)


def sums(observed: float, expected: float) -> Sums:
    return Sums(round(observed * UNIT), round(expected * UNIT))


def corrections_of(found: dict[Cell, Sums]) -> Corrections:
    corrections = Corrections("bundle")
    corrections.add(found.items())
    return corrections


def stream(observed: np.ndarray, expected: np.ndarray) -> Corrections:
    """Corrections that have seen these sums of push notices, one an hour from HOUR on."""
    return corrections_of(
        {cell(hour=HOUR + i): sums(o, e) for i, (o, e) in enumerate(zip(observed, expected, strict=True))}
    )


def only(corrections: Corrections, hour: int) -> Correction:
    (found,) = corrections.corrections(hour)
    return found


def add_up(*changes: Trials) -> Trials:
    found: Trials = {}
    for changed in changes:
        for key, value in changed.items():
            found[key] = found.get(key, Sums()) + value
    return {key: value for key, value in found.items() if value != Sums()}


# --- what one send adds


def test_a_send_of_which_nothing_is_known_was_expected_to_be_noticed() -> None:
    """A booked send adds what is expected of its delivery and of each group of hours, at the hour in which each is over."""
    found = trials(FORECAST, Happenings())

    assert found == {
        (DELIVER, HOUR + SETTLE_HOURS): sums(1, 0.98),
        **{
            (NOTICE, HOUR + edge + REPORT_HOURS): sums(0, e)
            for edge, e in zip(GROUP_EDGES, FORECAST.notice, strict=True)
        },
    }


def test_a_send_that_was_not_made_adds_nothing() -> None:
    """NOT_SENT takes back all that was booked, unless SENT says otherwise."""
    gone = happenings([("not_sent", HOUR)])
    made = happenings([("not_sent", HOUR), ("sent", HOUR)])

    assert trials(FORECAST, gone) == {}
    assert add_up(change(FORECAST, None, Happenings()), change(FORECAST, Happenings(), gone)) == {}
    assert trials(FORECAST, made) == trials(FORECAST, Happenings())


def test_a_send_that_was_lost_says_nothing_of_notices() -> None:
    """UNDELIVERED is a failed trial of delivery and no trial of anything else; who saw it all the same got it."""
    lost = happenings([("undelivered", HOUR + 1)])
    seen = happenings([("undelivered", HOUR + 1), ("seen", HOUR)])

    assert trials(FORECAST, lost) == {(DELIVER, HOUR + SETTLE_HOURS): sums(0, 0.98)}
    assert trials(FORECAST, seen) == trials(FORECAST, happenings([("seen", HOUR)]))


def test_a_click_ends_the_trials_of_notices_and_begins_that_of_an_order() -> None:
    """Seen after four hours, clicked an hour later and ordered: each stage at its own hour, none after the notice."""
    found = trials(FORECAST, happenings([("seen", HOUR + 4), ("clicked", HOUR + 5)], orders=[HOUR + 20]))

    assert {key for key in found if key[0] == NOTICE} == {(NOTICE, HOUR + edge + REPORT_HOURS) for edge in (1, 2, 3, 6)}
    assert found[NOTICE, HOUR + 6 + REPORT_HOURS] == sums(1, 1 - 0.2 / math.expm1(0.2))
    assert found[CLICK, HOUR + 4 + SETTLE_HOURS] == sums(1, 0.24)
    assert found[ORDER, HOUR + 5 + ORDER_HOURS] == sums(1, 0.17)
    assert UNSUBSCRIBE not in {stage for stage, _ in found}


def test_who_noticed_and_did_not_click_might_have_unsubscribed() -> None:
    """Without a click there is a trial of unsubscribing and none of an order."""
    found = trials(FORECAST, happenings([("opened", HOUR), ("complaint", HOUR)]))

    assert found[UNSUBSCRIBE, HOUR + SETTLE_HOURS] == sums(1, 0.01)
    assert found[CLICK, HOUR + SETTLE_HOURS] == sums(0, 0.3)
    assert ORDER not in {stage for stage, _ in found}


@pytest.mark.parametrize(
    ("orders", "is_ordered"),
    [
        ([], False),
        ([HOUR + 1], False),
        ([HOUR + 2], True),
        ([HOUR + 2 + ORDER_HOURS], True),
        ([HOUR + 3 + ORDER_HOURS], False),
        ([HOUR + 10, HOUR + 300], True),
    ],
)
def test_an_order_counts_within_the_window_after_the_click(orders: list[int], is_ordered: bool) -> None:
    """An order before the click or after the window is none, and a second one later does not hide the first."""
    assert happenings([("clicked", HOUR + 2)], orders=orders).is_ordered == is_ordered


UNTIL = replace(FORECAST, order_until=HOUR + 24)
"""Of a bundle that was taught with orders within a day of the decision."""


@pytest.mark.parametrize(("after", "is_ordered"), [(1, False), (2, True), (24, True), (25, False)])
def test_an_order_counts_within_the_window_that_the_bundle_was_taught_with(after: int, is_ordered: bool) -> None:
    """Where a forecast says until when training looked for orders, so does its trial, and it is over then."""
    happened = happenings([("clicked", HOUR + 2)], orders=[HOUR + after], order_until=UNTIL.order_until)

    found = trials(UNTIL, happened)

    assert {key: value for key, value in found.items() if key[0] == ORDER} == {
        (ORDER, HOUR + 24): sums(is_ordered, 0.18)
    }


def test_a_click_after_the_window_is_no_trial_of_an_order() -> None:
    """Training did not look at orders after the window, so that the bundle says nothing of them."""
    happened = happenings([("clicked", HOUR + 25)], orders=[HOUR + 26], order_until=UNTIL.order_until)

    assert ORDER not in {stage for stage, _ in trials(UNTIL, happened)}


def test_a_notice_later_than_any_forecast_is_no_observation() -> None:
    """Of notices after 72 hours the bundle says nothing, so that neither do they of the bundle."""
    found = trials(FORECAST, happenings([("seen", HOUR + 72)]))

    assert sum(value.observed for (stage, _), value in found.items() if stage == NOTICE) == 0
    assert found[CLICK, HOUR + 72 + SETTLE_HOURS] == sums(0, 0.16)


def test_a_forecast_that_ends_with_the_message_expects_nothing_later() -> None:
    """A message that lives for three hours has three groups; a later notice is not one of theirs."""
    short = replace(FORECAST, notice=FORECAST.notice[:3], click=FORECAST.click[:3], order=FORECAST.order[:3])

    found = trials(short, happenings([("seen", HOUR + 10)]))

    assert {key for key in found if key[0] == NOTICE} == {(NOTICE, HOUR + edge + REPORT_HOURS) for edge in (1, 2, 3)}
    assert found[CLICK, HOUR + 10 + SETTLE_HOURS] == sums(0, 0.26)


def test_a_reaction_to_another_send_ends_the_message() -> None:
    """From the hour in which another send was clicked nothing is expected of this one; until then, as much of a group as had passed."""
    found = trials(FORECAST, happenings([], others=[("seen", HOUR), ("clicked", HOUR + 4)]))

    assert {key: value for key, value in found.items() if key[0] == NOTICE} == {
        (NOTICE, HOUR + 1 + REPORT_HOURS): sums(0, 0.2),
        (NOTICE, HOUR + 2 + REPORT_HOURS): sums(0, 0.1),
        (NOTICE, HOUR + 3 + REPORT_HOURS): sums(0, 0.1),
        (NOTICE, HOUR + 6 + REPORT_HOURS): sums(0, 0.2 / 3),
    }


def test_a_notice_after_the_message_ended_is_no_observation() -> None:
    """What is not expected is not observed either, so that the two stay comparable."""
    found = trials(FORECAST, happenings([("seen", HOUR + 5)], others=[("unsubscribe", HOUR + 4)]))

    assert found[NOTICE, HOUR + 6 + REPORT_HOURS] == sums(0, 0.2 / 3)


def test_a_notice_before_the_send_counts_at_the_send() -> None:
    """Clocks that disagree make no sums of long ago."""
    found = trials(FORECAST, happenings([("clicked", HOUR - 400_000)]))

    assert min(hour for _, hour in found) == HOUR + 1 + REPORT_HOURS


KINDS = ("sent", "not_sent", "undelivered", "seen", "opened", "clicked", "unsubscribe", "complaint", "delivered")
EVENTS = st.lists(
    st.tuples(st.sampled_from(["own", "other", "order"]), st.sampled_from(KINDS), st.integers(HOUR - 2, HOUR + 170)),
    max_size=8,
)


@given(events=EVENTS)
def test_changes_add_up_to_what_is_known_in_the_end(events: list[tuple[str, str, int]]) -> None:
    """Whatever becomes known in whatever order, the sums are those of what is known in the end."""

    def known(count: int) -> Happenings:
        of = {name: [(kind, hour) for who, kind, hour in events[:count] if who == name] for name in ("own", "other")}
        return happenings(of["own"], of["other"], [hour for who, _, hour in events[:count] if who == "order"])

    steps = [change(FORECAST, known(i), known(i + 1)) for i in range(len(events))]

    assert add_up(change(FORECAST, None, known(0)), *steps) == trials(FORECAST, known(len(events)))


@pytest.mark.parametrize("hazard", [0.05, 0.7, 3.0])
def test_notices_as_forecast_are_as_expected(hazard: float) -> None:
    """Where each group's hazard is the truth, notices observed and expected agree within 4 standard errors, however sure a notice is."""
    rng = np.random.default_rng(5)
    forecast = replace(FORECAST, notice=(hazard,) * 3, click=(0.1,) * 3, order=(0.1,) * 3)
    observed = expected = 0
    for passed in rng.exponential(size=20_000) / hazard:
        seen = [("seen", HOUR + int(passed))] if passed < 3 else []
        of_notice = [value for (stage, _), value in trials(forecast, happenings(seen)).items() if stage == NOTICE]
        observed += sum(value.observed for value in of_notice)
        expected += sum(value.expected for value in of_notice)

    assert observed / expected == pytest.approx(1, abs=4 / math.sqrt(observed / UNIT))


# --- factors


@pytest.mark.parametrize("factor", [0.1, 0.5, 0.9, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("stage", TRIAL_STAGES)
def test_a_planted_factor_is_recovered(stage: str, factor: float) -> None:
    """After 20 days of 5 expected an hour the factor is within 3 of its posterior deviations of the truth."""
    rng = np.random.default_rng([int(100 * factor), TRIAL_STAGES.index(stage)])
    expected = np.full(480, 5.0)
    observed = rng.poisson(factor * expected)
    corrections = corrections_of(
        {
            cell(stage, HOUR + i, kind=("cart", "news")[i % 2], step=1 + i % 3 // 2): sums(o, e)
            for i, (o, e) in enumerate(zip(observed, expected, strict=True))
        }
    )

    found = corrections.factors(HOUR + 480, "cart", 1)[stage]["push"]

    assert abs(found.value - factor) < 3 * found.deviation * factor


def test_a_factor_of_one_kind_does_not_become_all_kinds() -> None:
    """Where carts do half as well and newsletters as expected, each kind has its own factor, and an unknown kind the channel's."""
    found = corrections_of({cell(kind="cart"): sums(400, 800), cell(kind="news"): sums(800, 800)})

    carts, news, other = (found.factors(HOUR + 1, kind, 1)[NOTICE]["push"].value for kind in ("cart", "news", "other"))

    assert carts == pytest.approx(0.5, abs=0.05)
    assert news == pytest.approx(1.0, abs=0.05)
    assert carts < other < news


def test_little_is_learned_from_little() -> None:
    """One expected notice that did not come moves the factor by less than a tenth, and what was not tried has none."""
    found = corrections_of({cell(): sums(0, 1)}).factors(HOUR + 1, "cart", 1)

    assert 0.9 < found[NOTICE]["push"].value < 1
    assert list(found) == [NOTICE]
    assert list(found[NOTICE]) == ["push"]


def test_trials_that_are_not_over_do_not_count() -> None:
    """Sums of a later hour wait until it begins."""
    found = corrections_of({cell(hour=HOUR + 5): sums(0, 100)})

    assert found.factors(HOUR + 4, "cart", 1) == {}
    assert found.factors(HOUR + 5, "cart", 1)[NOTICE]["push"].value < 0.2


def test_what_is_added_late_counts_at_once() -> None:
    """The factors for an hour are a function of the sums, also of those that come after the factors were first asked for."""
    late, early = stream(np.array([5.0]), np.array([5.0])), stream(np.array([5.0]), np.array([5.0]))
    late.factors(HOUR + 9, "cart", 1)
    for corrections in (late, early):
        corrections.add([(cell(hour=HOUR + 3), sums(0, 20))])

    assert late.factors(HOUR + 9, "cart", 1) == early.factors(HOUR + 9, "cart", 1)


def test_half_is_forgotten_in_fourteen_days() -> None:
    """Sums count half as much after each half-life."""
    corrections = stream(np.array([40.0]), np.array([100.0]))

    now, later, last = (only(corrections, HOUR + k * HALF_LIFE_HOURS) for k in range(3))

    assert (now.observed, now.expected) == pytest.approx((40, 100))
    assert (later.observed, later.expected) == pytest.approx((20, 50))
    assert (last.observed, last.expected) == pytest.approx((10, 25))


def test_replicas_add_up_to_one() -> None:
    """Sums of three replicas, merged in any order, give bit for bit what one that saw everything gives."""
    rng = np.random.default_rng(3)
    replicas: list[list[tuple[Cell, Sums]]] = [[], [], []]
    for hour in rng.integers(HOUR, HOUR + 50, 600):
        forecast = replace(FORECAST, send_hour=int(hour), notice=tuple(rng.random(8)))
        seen = happenings([("seen", int(hour + rng.integers(0, 90)))]) if rng.random() < 0.5 else Happenings()
        mine = cells("bundle", "push", str(rng.integers(3)), int(rng.integers(1, 4)), change(forecast, None, seen))
        replicas[int(rng.integers(3))] += mine
    one = Corrections("bundle")
    one.add(found for replica in replicas for found in replica)

    for order in permutations(replicas):
        merged = Corrections("bundle")
        for replica in order:
            merged.add(replica)
        assert merged.factors(HOUR + 60, "1", 2) == one.factors(HOUR + 60, "1", 2)
        assert merged.corrections(HOUR + 60) == one.corrections(HOUR + 60)


def test_sums_of_another_bundle_do_not_count() -> None:
    """What was seen of one bundle says nothing of how wrong another is."""
    corrections = Corrections("other")
    corrections.add([(cell(), sums(0, 100))])

    assert corrections.factors(HOUR + 1, "cart", 1) == {}


def test_a_decision_gets_the_factors_of_its_own_channels() -> None:
    """Channels that it does not have are left out, and with them stages that have no other."""
    push, sms = Factor(value=0.5, deviation=0.1), Factor(value=2.0, deviation=0.1)

    assert factors_of({NOTICE: {"push": push, "sms": sms}, ORDER: {"sms": sms}}, ["push"]) == {NOTICE: {"push": push}}


# --- changes


@pytest.mark.parametrize("rate", [0.5, 5.0, 50.0])
def test_an_outage_is_noticed_after_ten_expected_notices(rate: float) -> None:
    """After 300 notices as expected, nothing more: of 20 outages each is found once 7 to 12 notices were expected, in the hour that holds them,
    and then the factor tells of the time since alone."""
    rng = np.random.default_rng(11)
    before = int(300 / rate)
    for _ in range(20):
        usual, after = rng.poisson(np.full(before, rate)).astype(np.float64), 0
        while not find_change(np.append(usual, np.zeros(after)), np.full(before + after, rate)):
            after += 1
        assert 7 <= after * rate < 12 + rate

    broken = stream(np.append(usual, np.zeros(after)), np.full(before + after, rate))
    assert only(broken, HOUR + before + after).observed < 0.02 * 300


def test_a_rate_that_does_not_change_is_rarely_taken_to_have_changed() -> None:
    """Of 200 streams with a daily rhythm, looked at in every one of 600 hours, at most one in twenty ever raises an alarm."""
    rng = np.random.default_rng(1)
    expected = 5 * (1 + 0.5 * np.sin(np.arange(600) / 24 * 2 * math.pi))
    observed = rng.poisson(expected, (200, 600)).astype(np.float64)

    alarms = sum(any(find_change(one[:t], expected[:t]) for t in range(2, 601)) for one in observed)

    assert alarms <= 0.05 * 200


def test_one_event_that_was_all_but_ruled_out_is_no_change() -> None:
    """An unsubscribe of which the bundle expected nothing does not throw away what was known."""
    observed, expected = np.zeros(50), np.full(50, 1.0)
    observed[0], expected[0] = 1, 0.0
    observed[1:] = 1

    assert find_change(observed, expected) == 0


# --- what is told


def test_factors_that_matter_are_told() -> None:
    """The explanation names the stages of channels that differ from the bundle by more than a fifth, in one sentence, and is silent of others."""
    small, great = Factor(value=0.31, deviation=0.1), Factor(value=1.25, deviation=0.1)
    usual = Factor(value=0.85, deviation=0.1)
    factors = {NOTICE: {"push": small, "email": usual}, CLICK: {"email": great}}
    bundle = bundle_of({"push": 0.02, "email": 0.03})
    contexts = (replace(CONTEXT, factors=factors), replace(CONTEXT, factors={NOTICE: {"push": usual}}))

    told, silent = (explain(decide(context, RULES, bundle), "RUB") for context in contexts)

    assert "Corrected since training: email click x 1.25, push notice x 0.31." in told
    assert not any("Corrected" in sentence for sentence in silent)


def test_factors_are_read_back_as_they_were_used() -> None:
    """A context with factors comes out of its log row equal, to the bit."""
    factors = {NOTICE: {"push": Factor(value=0.3071, deviation=0.1581), "email": Factor()}}
    context = replace(CONTEXT, factors=factors)

    assert context_from_json(context_to_json(context)) == context
