"""Parts of the report by themselves: credit, charts, words, goals and the watch."""

import itertools
import math
import string
from dataclasses import replace
from datetime import date
from math import factorial
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules import Goal
from tests.experiments.shop import RULES, TREATED, Shop
from tests.training.examples import run_sql
from training.experiments.charts import Band, Line, Span, band_chart, line_chart, share_bars, span_chart, ticks
from training.experiments.credit import channel_roles
from training.experiments.goals import Standing, track_goals
from training.experiments.kpis import KPIS
from training.experiments.monitor import look
from training.experiments.people import Path
from training.experiments.words import (
    _TEXTS,
    LANGUAGES,
    NOTHING,
    kpi_formula,
    kpi_name,
    number,
    p_text,
    percent,
    say,
)

CHANNELS = ("push", "email", "sms", "viber")
PATHS = st.lists(
    st.builds(
        Path,
        variant=st.just(0),
        channels=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=5).map(tuple),
        margin=st.floats(0, 1000),
    ),
    min_size=1,
    max_size=20,
)


def shapley(paths: list[Path], channel: str) -> float:
    """The Shapley value by its definition: over all sets of the other channels, what the channel adds."""
    players = sorted({name for path in paths for name in path.channels})

    def worth(members: set[str]) -> float:
        return sum(path.margin for path in paths if set(path.channels) <= members)

    others = [player for player in players if player != channel]
    total = 0.0
    for size in range(len(others) + 1):
        weight = factorial(size) * factorial(len(players) - size - 1) / factorial(len(players))
        for members in itertools.combinations(others, size):
            total += weight * (worth({*members, channel}) - worth(set(members)))
    return total


@given(PATHS)
def test_credit_is_the_shapley_value(paths: list[Path]) -> None:
    """The even division of each order is the Shapley value by its definition, and adds up to the margin of all orders."""
    roles = channel_roles(paths)

    for role in roles:
        assert role.credit == pytest.approx(shapley(paths, role.channel), abs=1e-6)
    assert sum(role.credit for role in roles) == pytest.approx(sum(path.margin for path in paths), abs=1e-6)
    assert sum(role.first for role in roles) == sum(role.last for role in roles) == len(paths)


def test_roles_tell_first_assisting_and_last() -> None:
    """A channel that came first and again last assisted nothing there; one in between did."""
    (push, sms) = sorted(
        channel_roles([Path(variant=0, channels=("push", "sms", "push"), margin=10.0)]), key=lambda role: role.channel
    )

    assert (push.first, push.assisting, push.last) == (1, 0, 1)
    assert (sms.first, sms.assisting, sms.last) == (0, 1, 0)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    """An axis has at most eight marks, all between its ends, evenly apart."""
    marks = ticks(low, low + span)

    assert len(marks) <= 8
    assert all(low - 1e-6 * span <= mark <= low + span + 1e-6 * span for mark in marks)


def text(value: float) -> str:
    return f"{value:g}"


def test_charts_of_nothing_are_empty() -> None:
    """Where there is nothing to draw there is no drawing, and a gap is no point."""
    empty = Band(x=[1.0], y=[math.nan], low=[math.nan], high=[math.nan])
    line = Line(name="a", x=[0.0], y=[1.0])

    assert band_chart(empty, title="t", x_label="x", y_label="y", x_text=text, y_text=text) == ""
    assert line_chart([line], title="t", x_label="x", y_label="y", x_text=text, y_text=text) == ""
    assert span_chart([], title="t", x_label="x", x_text=text) == ""
    assert share_bars([("a", [("b", 0.0)])], title="t", text=text) == ""


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8), st.floats(0, 1e5))
def test_what_is_drawn_stays_in_its_frame(values: list[float], width: float) -> None:
    """Whatever the figures, the drawing parses and no point lies outside of it."""
    low, high = [value - width for value in values], [value + width for value in values]
    band = Band(x=[float(i) for i in range(len(values))], y=values, low=low, high=high)
    drawings = [
        band_chart(band, title="<t>", x_label="x", y_label="y", x_text=text, y_text=text),
        span_chart(
            [Span(label=f"<{v}>", value=v, low=v - width, high=v + width, text="a&b") for v in values],
            title="t",
            x_label="x",
            x_text=text,
        ),
    ]
    for drawing in drawings:
        root = ET.fromstring(drawing)
        _, _, right, bottom = map(float, root.attrib["viewBox"].split())
        for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
            assert 0 <= float(circle.attrib["cx"]) <= right
            assert 0 <= float(circle.attrib["cy"]) <= bottom


@pytest.mark.parametrize("key", sorted(_TEXTS))
def test_both_languages_ask_for_the_same_values(key: str) -> None:
    """A text and its translation are filled in with the same things."""
    fields = [{name for _, name, _, _ in string.Formatter().parse(one) if name} for one in _TEXTS[key]]

    assert fields[0] == fields[1]
    assert all(_TEXTS[key])


@pytest.mark.parametrize("metric", sorted(KPIS))
def test_every_kpi_has_a_name_and_a_formula(metric: str) -> None:
    """In both languages, each different from the metric's key."""
    for language in LANGUAGES:
        assert kpi_name(language, metric)
        assert kpi_formula(language, metric)


def test_numbers_are_written_as_readers_expect() -> None:
    """Thousands, decimals, signs and shares follow the language; what is no number is a dash."""
    assert number("en", 1234.56, 1) == "1,234.6"
    assert number("ru", 1234.56, 1) == "1\u202f234,6"
    assert number("en", -0.001, 2, signed=True) == "0.00"
    assert number("en", -5, signed=True) == "\u22125"
    assert percent("en", 0.5) == "50%"
    assert percent("en", 0.123) == "12.3%"
    assert percent("ru", -0.00123, signed=True) == "\u22120,12\u202f%"
    assert percent("en", math.nan) == number("ru", math.inf) == p_text("en", math.nan) == NOTHING
    assert p_text("en", 1e-9) == "<\u202f0.001"
    assert say("ru", "held") == "соблюдена"


def test_a_goal_is_tracked_by_checkpoints(shop: Shop) -> None:
    """Each checkpoint is the figure of its days; the standing is that of the latest against an even change from the baseline."""
    goal = Goal(
        name="g",
        metric="orders",
        change=0.5,
        start_date=date(2026, 11, 6),
        end_date=date(2026, 11, 26),
        checkpoint_days=5,
        baseline=0.01,
    )
    rules = replace(
        RULES, goals=(goal, replace(goal, name="far", baseline=1e6), replace(goal, name="none", baseline=None))
    )
    reached, far, measured = track_goals(shop.url, rules)

    assert [checkpoint.day for checkpoint in reached.checkpoints] == [date(2026, 11, 11 + 5 * i) for i in range(4)]
    assert reached.standing is Standing.REACHED
    assert reached.checkpoints[0].due == pytest.approx(0.01 * (1 + 0.5 * 5 / 20))
    assert far.standing is Standing.BEHIND
    assert measured.baseline > 0
    assert measured.target == pytest.approx(1.5 * measured.baseline)
    early = replace(rules, goals=(replace(goal, start_date=date(2026, 11, 25), end_date=date(2026, 12, 25)),))
    assert track_goals(shop.url, early)[0].standing is Standing.TOO_EARLY


def test_the_watch_is_quiet_while_all_is_well(shop: Shop) -> None:
    """Shares as set and guardrails unbroken raise no alarm, and nothing is stopped."""
    stopped: list[str] = []
    found = look(
        shop.url, replace(shop.experiment, stop_on_harm=True), shop.rules, lambda name, why: stopped.append(why)
    )

    assert (found.alarms, found.is_stopped, stopped) == ((), False, [])
    assert "exposed" in found.text


def test_an_alarm_stops_an_experiment_that_is_to_be_stopped(own_shop: Shop) -> None:
    """Missing customers raise an alarm; only where the rules say so is the experiment stopped, once, with the reason."""
    run_sql(own_shop.url, "DELETE FROM exposures WHERE variant = ? AND customer_key < '5'", TREATED)
    stopped: list[tuple[str, str]] = []

    def stop(name: str, why: str) -> None:
        stopped.append((name, why))

    kept = look(own_shop.url, own_shop.experiment, own_shop.rules, stop)
    assert len(kept.alarms) == 1
    assert not stopped
    ended = look(own_shop.url, replace(own_shop.experiment, stop_on_harm=True), own_shop.rules, stop)
    assert ended.is_stopped
    assert stopped[0][0] == "order"
    assert "shares of variants are not as set" in stopped[0][1]


def test_a_broken_guardrail_is_an_alarm(shop: Shop) -> None:
    """With the variants the other way round conversion falls by more than half: the guardrail is broken beyond chance."""
    turned = replace(shop.experiment, variants=(shop.experiment.variants[1], shop.experiment.variants[0]))
    found = look(shop.url, turned, shop.rules)

    assert any("breaks the guardrail conversion" in alarm for alarm in found.alarms)


def test_a_watch_before_the_first_customer_says_so(log_url: str) -> None:
    """Nobody exposed yet is no alarm."""
    found = look(log_url, RULES.experiments[0], RULES)

    assert "is empty" in found.text
    assert not found.alarms
