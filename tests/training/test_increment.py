"""What a policy adds to no send: by hand, in its limits, and its coverage in small worlds of known truth."""

from dataclasses import replace

import numpy as np
import pytest

from models.errors import LogUnusable
from training.evaluate import verdict_of
from training.increment import (
    Increment,
    Judged,
    control_weights,
    estimate_increment,
    least_variance,
    nearness_of_clickers,
    scale_of_gain,
    weights_before,
)
from training.lightweight import OverlapKind, make_light
from training.ope_coverage import Outcome, light_world, table

WORLDS, POOR_WORLDS, DECISIONS = 60, 15, 8_000


def light(overlap: OverlapKind = "good", seed: int = 0, decisions: int = DECISIONS) -> Judged:
    return make_light(decisions, overlap, np.random.default_rng(seed)).judged


def of_no_clicks(judged: Judged) -> Judged:
    """The same log from a shop that does not report clicks."""
    nothing = np.zeros(len(judged))
    return replace(judged, clicked=nothing, value_after=nothing, organic_after=nothing, has_clicks=False)


def test_randomised_estimate_by_hand() -> None:
    """Without clicks the increment is the doubly robust difference between the policy and no send."""
    judged = of_no_clicks(light())

    found = estimate_increment(judged, 0.0)

    weight = judged.target_action / judged.propensity
    gained = judged.value - judged.organic
    terms = (
        judged.margin * judged.modelled_orders
        + weight * (gained - judged.margin * judged.orders)
        - control_weights(judged) * gained
    )
    part = next(p for p in found.parts if p.name == "randomised, by slot")
    assert part.value == pytest.approx(terms.mean())
    assert part.doubt == 0.0
    assert {p.name for p in found.parts} == {"randomised, by slot", "randomised, by channel"}


def test_clicks_estimate_by_hand() -> None:
    """Through clicks, what was ordered after them is counted less what would have been anyway, with the weights of slots."""
    judged = light()

    found = estimate_increment(judged, 0.0)

    scale = scale_of_gain(replace(judged, organic_after=found.nearness * judged.organic_after))
    assert scale is not None

    weight = judged.target_action / judged.propensity
    gained = judged.value_after - found.nearness * judged.organic_after
    per_click = scale * judged.margin * judged.gain
    terms = scale * judged.margin * judged.modelled_clicks + weight * (gained - judged.click * per_click)
    parts = {p.name: p for p in found.parts}
    assert parts["clicks, by slot"].value == pytest.approx(terms.mean())
    pooled = scale * judged.margin * judged.modelled_clicks + weight * per_click * (judged.clicked - judged.click)
    assert parts["pooled, by slot"].value == pytest.approx(pooled.mean())


@pytest.mark.parametrize(("known", "nearness"), [(1.0, 1.0), (1.44, 1.2), (0.64, 0.8), (9.0, 2.0), (0.01, 0.5)])
def test_clickers_are_taken_to_be_half_as_near_again_as_is_known(known: float, nearness: float) -> None:
    """By how much oftener the models say that clickers order anyway, the root of that is taken for what they do not know, within bounds."""
    judged = light()
    judged = replace(judged, organic=np.where(judged.is_send & (judged.clicked > 0), 20.0, 20.0 / known))
    usual = judged.organic[judged.is_send].mean()

    found = nearness_of_clickers(judged)

    # Clickers are a few of those sent to, so that these are a little nearer than the others.
    assert found == pytest.approx(np.clip(np.sqrt(20.0 / usual), 0.5, 2.0))
    assert found == pytest.approx(nearness, rel=0.05)


@pytest.mark.parametrize("known", [1.0, 9.0])
def test_what_selects_clickers_is_doubted_as_far_as_it_is_taken(known: float) -> None:
    """The doubt of what clickers order anyway is a quarter; where they are much nearer by what is known, it reaches from nothing unknown to as much as is known."""
    judged = light()
    near = np.where(judged.is_send & (judged.clicked > 0), known, 1.0)
    judged = replace(judged, organic=near * judged.organic)

    found = estimate_increment(judged, 0.0)

    q = found.nearness
    of_channel = judged.target / judged.channel_propensity * judged.slot_ratio
    left = float(judged.organic_after.sum() / (judged.clicked * judged.organic).sum())
    anyway = q * left * float((of_channel * judged.click * judged.organic).mean())
    part = next(p for p in found.parts if p.name == "clicks, by slot")
    assert part.doubt == pytest.approx(max(0.25, (q - 1 / q) / 2) * anyway)
    assert (part.doubt > 0.5 * anyway) == (known > 1)


def test_nobody_who_clicks_is_nearer_to_nothing() -> None:
    """Without clicks nothing is taken to select clickers."""
    assert nearness_of_clickers(of_no_clicks(light())) == 1.0


def test_figure_is_the_mix_of_its_parts() -> None:
    """The figure is the mean of the estimates by their shares, which are not negative and sum to 1; its error holds noise and doubt."""
    found = estimate_increment(light(), 0.0)

    shares = np.array([p.share for p in found.parts])
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1)
    assert found.margin.value == pytest.approx(sum(p.share * p.value for p in found.parts))
    assert found.margin.standard_error >= min(p.doubt for p in found.parts if p.share > 0)


def test_net_is_margin_less_cost_less_harm() -> None:
    """Net value is the margin less what messages cost less the harm of unsubscribing."""
    judged = light()
    judged = replace(judged, unsubscribed=(np.arange(len(judged)) % 50 == 0).astype(np.float64))

    found = estimate_increment(judged, 120.0)

    assert found.unsubscribes.value == pytest.approx(0.02, abs=0.01)
    assert found.net.value == pytest.approx(found.margin.value - found.cost.value - 120 * found.unsubscribes.value)


def test_what_was_not_sent_costs_nothing() -> None:
    """Where half of the sends never went out, the policy costs about half."""
    judged = light()
    whole = estimate_increment(judged, 0.0).cost.value
    half = replace(judged, paid=judged.price * (np.arange(len(judged)) % 2))

    assert estimate_increment(half, 0.0).cost.value == pytest.approx(whole / 2, rel=0.15)


def test_large_logs_trust_fewer_assumptions() -> None:
    """From 5,000 to 500,000 decisions, the estimate that pools orders loses weight to those with fewer assumptions, and the interval shrinks."""
    small = estimate_increment(light(decisions=5_000), 0.0)
    large = estimate_increment(light(decisions=500_000), 0.0)

    def pooled(found: Increment) -> float:
        return sum(p.share for p in found.parts if p.name.startswith("pooled"))

    assert pooled(large) < pooled(small)
    assert large.margin.standard_error < 0.5 * small.margin.standard_error


def test_what_cannot_be_told_is_refused() -> None:
    """Without clicks and with hardly a decision not to send, nothing tells what a send adds."""
    judged = of_no_clicks(light("poor"))
    sent = judged.take(judged.is_send)

    with pytest.raises(LogUnusable, match="log with a holdout or with more exploration, or report clicks"):
        estimate_increment(sent, 0.0)


def test_least_variance_prefers_the_better() -> None:
    """Independent estimates are mixed by the inverse of their variances; one that is worse and goes along with another gets nothing."""
    assert least_variance(np.diag([1.0, 3.0])) == pytest.approx([0.75, 0.25])
    assert least_variance(np.array([[1.0, 1.4], [1.4, 4.0]])) == pytest.approx([1.0, 0.0])


def test_steps_are_weighted_by_those_before() -> None:
    """A later step's weight is the product of the weights of the steps before it, of its own message alone."""
    judged = light(decisions=500).take(np.arange(500) < 5)
    cascade = replace(
        judged,
        step=np.array([1, 1, 2, 3, 2]),
        message=np.array([7, 8, 7, 7, 8]),
        target=np.array([0.5, 1.0, 0.2, 1.0, 1.0]),
        channel_propensity=np.array([0.25, 0.5, 0.4, 1.0, 1.0]),
    )

    assert weights_before(cascade) == pytest.approx([1.0, 1.0, 2.0, 1.0, 2.0])


def test_steps_without_overlap_are_left_out() -> None:
    """A later step that the log hardly tried as the policy would is not in the figure, and it is said; the first one is told all the same."""
    judged = light(decisions=8_000)
    later = judged.take(np.arange(8_000) < 100)
    both = Judged(
        has_clicks=True,
        has_steps=True,
        **{
            name: np.concatenate([getattr(judged, name), getattr(later, name)])
            for name in Judged.__slots__
            if name not in ("has_clicks", "has_steps")
        },
    )
    steps = np.concatenate([np.ones(8_000, dtype=np.intp), np.full(100, 2)])
    found = verdict_of("cascade", replace(both, step=steps), 0.0, np.random.default_rng(0))

    alone = estimate_increment(replace(judged, has_steps=True), 0.0)
    assert found.increment is not None
    assert found.increment.margin.value == pytest.approx(alone.margin.value)
    assert [step.is_told for step in found.steps] == [True, False]
    assert found.steps[0].margin == pytest.approx(alone.margin.value)
    assert not any("randomised" in part.name for part in found.increment.parts)


@pytest.fixture(scope="module")
def study() -> list[Outcome]:
    """Every estimate in 60 worlds with good overlap, and 15 with poor."""
    good = [o for seed in range(WORLDS) for o in light_world("good", 1000 + seed, DECISIONS)]
    return good + [o for seed in range(POOR_WORLDS) for o in light_world("poor", 2000 + seed, DECISIONS)]


@pytest.mark.parametrize("estimator", ["SNIPS, total", "DR, total", "increment, net", "increment, margin"])
def test_intervals_hold_the_truth(study: list[Outcome], estimator: str) -> None:
    """At good overlap, of 60 worlds the 95 % interval holds the truth in 93 %, less three binomial errors of that, or more."""
    mine = [o for o in study if (o.kind, o.estimator) == ("good", estimator) and o.is_given]

    bound = 0.93 - 3 * np.sqrt(0.93 * 0.07 / max(len(mine), 1))
    assert all(np.isfinite([o.value, o.low, o.high]).all() for o in mine)
    assert not mine or np.mean([o.is_covered for o in mine]) >= bound


def test_poor_overlap_is_said(study: list[Outcome]) -> None:
    """At poor overlap no total is given in any world, and the increment in few; each refusal says what is missing."""
    poor = [o for o in study if o.kind == "poor"]

    assert not any(o.is_given for o in poor if "total" in o.estimator)
    assert np.mean([o.is_given for o in poor if o.estimator == "increment, net"]) < 0.3
    assert all(o.problems for o in poor if not o.is_given)


def test_increment_is_told_better_than_by_totals(study: list[Outcome]) -> None:
    """The error of the increment is less than half of that of an increment taken from totals: SNIPS less what is ordered anyway, known exactly."""
    net = {(o.truth, o.value) for o in study if (o.kind, o.estimator) == ("good", "increment, net")}
    total = {(o.truth, o.value) for o in study if (o.kind, o.estimator) == ("good", "SNIPS, total")}

    own = float(np.mean([abs(value - truth) for truth, value in net]))
    by_total = float(np.mean([abs(value - truth) for truth, value in total]))
    assert own < 0.5 * by_total


def test_table_counts_refusals(study: list[Outcome]) -> None:
    """The table has a line for each kind and estimate, with how many worlds were judged and how many refused."""
    text = table(study)

    assert f"| good | increment, net | {WORLDS} | 0 |" in text
    assert f"| poor | SNIPS, total | 0 | {POOR_WORLDS} |" in text
