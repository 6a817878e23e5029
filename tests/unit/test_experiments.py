"""Experiments: who takes part, in which variant, by which rules; and how mistakes in them are named."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from scipy.stats import chi2_contingency, chisquare

from models.context import Assignment, Message
from models.experiments import (
    Enrolment,
    ExperimentState,
    Standing,
    assignments,
    bundle_sources,
    bundle_under,
    draw_variant,
    rules_under,
)
from models.rules import Holdout, Rules, parse_rules
from tests.unit.examples import CONTEXT
from tests.unit.test_rules import LINES, mistakes

EXPERIMENT = """
[[experiments]]
name = "learned"
start_time = 2026-11-01T00:00:00Z
end_time = 2026-12-01T00:00:00Z
[[experiments.variants]]
name = "by-hand"
weight = 0.25
[experiments.variants.policy]
name = "rule_cascade"
[[experiments.variants]]
name = "learned"
weight = 0.75
"""
OTHER = EXPERIMENT.replace('"learned"\nstart', '"other"\nlayer = "second"\nstart').replace(
    '[experiments.variants.policy]\nname = "rule_cascade"', "[experiments.variants.timing]\nslot_hours = 6"
)
RULES = parse_rules(LINES + EXPERIMENT)
LEARNED = RULES.experiments[0]
NOW = datetime(2026, 11, 10, 9, tzinfo=UTC)
KEYS = [f"{number:032x}" for number in range(20_000)]


def variant_of(
    key: str,
    rules: Rules = RULES,
    known: Enrolment | None = None,
    now: datetime = NOW,
    message: Message = CONTEXT.message,
) -> str:
    """The variant of a customer in the first experiment, empty where they are in none."""
    found = assignments(rules, key, message, "RU", now, known or Enrolment())
    return next((a.variant for a in found if a.experiment == rules.experiments[0].name), "")


def test_variants_have_their_weights() -> None:
    """Customers are spread over the variants as the weights say, by a test at 1 in 10,000."""
    counts = Counter(variant_of(key) for key in KEYS)

    assert set(counts) == {"by-hand", "learned"}
    expected = [0.25 * len(KEYS), 0.75 * len(KEYS)]
    assert chisquare([counts["by-hand"], counts["learned"]], expected).pvalue > 1e-4


def test_experiments_of_two_layers_are_independent() -> None:
    """The variant of one experiment says nothing of the variant of another in another layer."""
    rules = parse_rules(LINES + EXPERIMENT + OTHER)
    pairs = Counter(
        tuple(a.variant for a in assignments(rules, key, CONTEXT.message, "RU", NOW, Enrolment())) for key in KEYS
    )

    table = [[pairs[one, other] for other in ("by-hand", "learned")] for one in ("by-hand", "learned")]
    assert chi2_contingency(table).pvalue > 1e-4


def test_experiments_of_one_layer_share_no_customer() -> None:
    """Parts of one layer are taken by different customers, and all of them together by everybody."""
    first = EXPERIMENT.replace('"learned"\nstart', '"learned"\nlayer_range = [0.0, 0.3]\nstart')
    second = EXPERIMENT.replace('"learned"\nstart', '"second"\nlayer_range = [0.3, 1.0]\nstart')
    rules = parse_rules(LINES + first + second)
    taken = Counter(
        tuple(a.experiment for a in assignments(rules, key, CONTEXT.message, "RU", NOW, Enrolment())) for key in KEYS
    )

    assert set(taken) == {("learned",), ("second",)}
    assert taken["learned",] / len(KEYS) == pytest.approx(0.3, abs=0.02)


def test_a_growing_exposure_keeps_those_who_are_in() -> None:
    """Raising the share adds customers, lets none out and changes nobody's variant."""
    small = {key: draw_variant(LEARNED, key, 0.1) for key in KEYS}
    large = {key: draw_variant(LEARNED, key, 0.5) for key in KEYS}

    assert all(large[key] == variant for key, variant in small.items() if variant is not None)
    assert sum(variant is not None for variant in small.values()) / len(KEYS) == pytest.approx(0.1, abs=0.01)
    assert sum(variant is not None for variant in large.values()) / len(KEYS) == pytest.approx(0.5, abs=0.02)


def test_whoever_was_exposed_stays_in_their_variant() -> None:
    """Neither another weight nor an exposure of 0 takes a customer out of the variant that they have seen."""
    rules = parse_rules(LINES + EXPERIMENT.replace("0.25", "0.5").replace("0.75", "0.5"))
    for key in KEYS[:200]:
        first = Assignment(experiment="learned", variant=variant_of(key), probability=0.25)
        known = Enrolment(exposures={"learned": first}, standings={"learned": Standing(exposure=0.0)})

        assert assignments(rules, key, CONTEXT.message, "RU", NOW, known) == (first,)
        assert not variant_of(key, known=Enrolment(standings={"learned": Standing(exposure=0.0)}))


@pytest.mark.parametrize(
    ("known", "now", "changes"),
    [
        (Enrolment(standings={"learned": Standing(state=ExperimentState.PAUSED)}), NOW, {}),
        (Enrolment(standings={"learned": Standing(state=ExperimentState.STOPPED)}), NOW, {}),
        (Enrolment(), LEARNED.start_time - timedelta(microseconds=1), {}),
        (Enrolment(), LEARNED.end_time, {}),
        (Enrolment(), NOW, {"category": "service"}),
    ],
)
def test_nobody_takes_part_in_what_does_not_run(known: Enrolment, now: datetime, changes: dict[str, str]) -> None:
    """Paused, stopped, before its start, from its end on, or about other messages: an experiment has nobody."""
    message = replace(CONTEXT.message, **changes)  # type: ignore[arg-type]  # fields of a message

    assert {variant_of(key, known=known, now=now, message=message) for key in KEYS[:100]} == {""}
    assert "" not in {variant_of(key) for key in KEYS[:100]}


@pytest.mark.parametrize(
    "limit", ['kinds = ["welcome"]', 'campaigns = ["spring"]', 'journey_stages = ["new"]', 'countries = ["KZ"]']
)
def test_eligibility_limits_an_experiment_to_what_it_is_about(limit: str) -> None:
    """A message of another kind, campaign, stage or country is not part of it; one of the named is."""
    rules = parse_rules(LINES + EXPERIMENT.replace('"learned"\nstart', f'"learned"\n{limit}\nstart'))
    about = replace(CONTEXT.message, kind="welcome", campaign="spring", journey_stage="new")

    assert not assignments(rules, "a", CONTEXT.message, "RU", NOW, Enrolment())
    assert assignments(rules, "a", about, "KZ", NOW, Enrolment())


def test_the_holdout_takes_part_in_no_experiment_on_marketing() -> None:
    """Who gets no marketing is in no variant, so that the holdout measures the programme with all its experiments."""
    rules = replace(RULES, holdout=Holdout(share=1.0, salt="s"))

    assert {variant_of(key, rules) for key in KEYS[:100]} == {""}


def test_a_missing_bundle_keeps_the_whole_experiment_from_running() -> None:
    """Where the bundle of one variant is not loaded, nobody is in any variant: else the others would be compared with nothing."""
    text = EXPERIMENT.replace('"learned"\nweight', '"learned"\nbundle = "models:/m@challenger"\nweight')
    rules = parse_rules(LINES + text)

    assert bundle_sources(rules) == {"models:/m@challenger"}
    assert {variant_of(key, rules, Enrolment(missing=frozenset(bundle_sources(rules)))) for key in KEYS[:100]} == {""}
    assert {variant_of(key, rules) for key in KEYS[:100]} == {"by-hand", "learned"}


def test_a_variant_decides_by_the_file_with_its_own_keys_over_it() -> None:
    """Only what the variant names differs from the file, in the order of keys, not of tables."""
    text = LINES.replace('order = ["push", "sms"]', 'order = ["push", "sms"]\nmax_steps = 2') + EXPERIMENT.replace(
        "[experiments.variants.policy]",
        "[experiments.variants.cascade]\nstop_on_click = false\n[experiments.variants.policy]",
    )
    rules = parse_rules(text)
    by_hand = rules_under(rules, [Assignment(experiment="learned", variant="by-hand", probability=0.25)])
    learned = rules_under(rules, [Assignment(experiment="learned", variant="learned", probability=0.75)])

    assert (by_hand.policy.name, by_hand.cascade.max_steps, by_hand.cascade.stop_on_click) == ("rule_cascade", 2, False)
    assert by_hand.cascade.order == rules.cascade.order
    assert learned == rules == rules_under(rules, [])
    assert by_hand.name == rules.name


def test_variants_that_the_file_no_longer_has_decide_as_the_file_says() -> None:
    """A cascade that began in an experiment which was taken out of the file goes on by the file."""
    gone = [Assignment(experiment="gone", variant="a", probability=0.5)]

    assert rules_under(RULES, gone) == RULES
    assert bundle_under(RULES, gone) == ""


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("weight = 0.75", "weight = 0.5", "experiments[0].variants", "sum to 0.75"),
        ("weight = 0.75", "weight = 1.75", "experiments[0].variants[1].weight", "less than 1"),
        ('name = "by-hand"', 'name = "learned"', "experiments[0].variants", "'learned'"),
        ("2026-12-01", "2026-10-01", "experiments[0].end_time", "not after start_time"),
        ("T00:00:00Z\nend", "T00:00:00\nend", "experiments[0].start_time", "timezone"),
        ('"learned"\nstart', '"learned"\nlayer_range = [0.5, 0.5]\nstart', "experiments[0].layer_range", "[0.0, 0.5]"),
        ('"learned"\nstart', '"learned"\nexposure = 1.2\nstart', "experiments[0].exposure", "1"),
        ('"learned"\nstart', '"learned"\nsuccess = ["clicks"]\nstart', "experiments[0].success[0]", "net_value"),
        (
            '"learned"\nstart',
            '"learned"\nsuccess = ["unsubscribe_rate"]\nstart',
            "experiments[0].guardrails",
            "unsubscribe_rate is named twice",
        ),
        ('name = "rule_cascade"', 'name = "linucb"', "experiments[0].variants[0].policy.name", "inverse_gap"),
        (
            'name = "rule_cascade"',
            'name = "inverse_gap"',
            "experiments[0].variants[0].policy.exploration_budget",
            "500",
        ),
        (
            "[experiments.variants.policy]\nname = ",
            "[experiments.variants.cascade]\norder = ['fax']\n[experiments.variants.policy]\nname = ",
            "experiments[0].variants[0].cascade.order[0]",
            "'fax'",
        ),
        (
            "[experiments.variants.policy]\nname = ",
            "[experiments.variants.caps]\nlimit = ",
            "experiments[0].variants[0].caps",
            "unknown key",
        ),
    ],
)
def test_each_mistake_in_an_experiment_is_named_by_its_key(old: str, new: str, key: str, says: str) -> None:
    """What is wrong with an experiment is said at the key that is to be mended."""
    assert EXPERIMENT.count(old) == 1

    assert says in mistakes(LINES + EXPERIMENT.replace(old, new))[key]


def test_overlapping_experiments_of_one_layer_are_refused() -> None:
    """Two at once over the same customers of a layer are refused; one after the other, or side by side, they are not."""
    second = EXPERIMENT.replace('"learned"\nstart', '"second"\nstart')

    assert "learned, in the same layer" in mistakes(LINES + EXPERIMENT + second)["experiments[1].layer_range"]
    parse_rules(LINES + EXPERIMENT + second.replace("2026-12-01", "2027-01-01").replace("2026-11-01", "2026-12-01"))


def test_experiments_of_two_layers_that_change_the_same_are_refused() -> None:
    """Where both change the policy, a customer in both would have the one of only one."""
    second = EXPERIMENT.replace('"learned"\nstart', '"second"\nlayer = "other"\nstart')

    assert "both change policy" in mistakes(LINES + EXPERIMENT + second)["experiments[1]"]
    parse_rules(LINES + EXPERIMENT + OTHER)


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("change = 0.3", "change = 0", "goals[0].change", "is zero"),
        ("2026-12-31", "2026-01-01", "goals[0].end_date", "not after"),
        ("purchase_frequency", "happiness", "goals[0].metric", "purchase_frequency"),
    ],
)
def test_each_mistake_in_a_goal_is_named_by_its_key(old: str, new: str, key: str, says: str) -> None:
    """What is wrong with a goal is said at the key that is to be mended."""
    goal = '[[goals]]\nname = "often"\nmetric = "purchase_frequency"\nchange = 0.3\nstart_date = 2026-07-01\nend_date = 2026-12-31\n'
    parse_rules(LINES + goal)

    assert says in mistakes(LINES + goal.replace(old, new))[key]
