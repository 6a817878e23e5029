"""Experiments: which customers take part, in which variant, and by which rules their decisions are made.

A customer's place in a layer, whether they are exposed and which variant they get are three salted hashes of the person, so that they
are the same in every replica, experiments of different layers are independent of each other, and a growing exposure keeps those who
are in. Whoever has been exposed stays in their variant, whatever is changed later, also where two profiles turn out to be one person.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from models.context import Assignment, Message
from models.decide import is_held_out
from models.rules import Experiment, Rules, Variant


class ExperimentState(StrEnum):
    """What an operator has made of an experiment."""

    RUNNING = "running"
    PAUSED = "paused"
    """Nobody is decided by a variant until it is resumed."""
    STOPPED = "stopped"
    """As paused, for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How an experiment is run at present, where that is not as its rules say."""

    state: ExperimentState = ExperimentState.RUNNING
    exposure: float | None = None
    """None: as the rules say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What is known when a customer's experiments are looked up."""

    standings: Mapping[str, Standing] = field(default_factory=dict)
    """By experiment; none of one: it runs as its rules say."""
    exposures: Mapping[str, Assignment] = field(default_factory=dict)
    """The first that the customer had in each experiment."""
    missing: frozenset[str] = frozenset()
    """Bundles of variants that are not loaded: their experiments take part in nothing, so that no variant is without its own."""


def assignments(
    rules: Rules, key: str, message: Message, country: str, now: datetime, known: Enrolment
) -> tuple[Assignment, ...]:
    """Return the experiments that a message for a customer is part of, with the customer's variant of each.

    Parameters
    ----------
    key : of the person, across identities.
    """
    if not rules.experiments or (message.category == "marketing" and is_held_out(key, rules)):
        return ()
    found = []
    for experiment in rules.experiments:
        standing = known.standings.get(experiment.name, Standing())
        if standing.state is not ExperimentState.RUNNING or not is_about(experiment, message, country, now):
            continue
        if any(variant.bundle in known.missing for variant in experiment.variants if variant.bundle):
            continue
        exposed = known.exposures.get(experiment.name)
        if exposed is not None and experiment.variant(exposed.variant) is not None:
            found.append(exposed)
            continue
        exposure = experiment.exposure if standing.exposure is None else standing.exposure
        variant = draw_variant(experiment, key, exposure)
        if variant is not None:
            found.append(Assignment(experiment=experiment.name, variant=variant.name, probability=variant.weight))
    return tuple(found)


def is_about(experiment: Experiment, message: Message, country: str, now: datetime) -> bool:
    """Tell whether an experiment is about such a message at that time."""
    limits: list[tuple[Sequence[str], str]] = [
        (experiment.kinds, message.kind),
        (experiment.campaigns, message.campaign),
        (experiment.journey_stages, message.journey_stage),
        (experiment.countries, country),
    ]
    return (
        experiment.start_time <= now < experiment.end_time
        and message.category in experiment.categories
        and all(not allowed or value in allowed for allowed, value in limits)
    )


def draw_variant(experiment: Experiment, key: str, exposure: float) -> Variant | None:
    """Return the variant of a customer who is exposed for the first time; None where they are not."""
    begin, end = experiment.layer_range
    if not begin <= unit_hash("layer", experiment.layer, key) < end:
        return None
    salt = experiment.salt or experiment.name
    if unit_hash("exposure", salt, key) >= exposure:
        return None
    place, above = unit_hash("variant", salt, key), 0.0
    for variant in experiment.variants:
        above += variant.weight
        if place < above:
            return variant
    return experiment.variants[-1]


def unit_hash(purpose: str, salt: str, key: str) -> float:
    """Return a number in [0, 1) that depends on nothing but these, uniform over customers and independent between salts."""
    digest = hashlib.sha256(f"{purpose}\x1f{salt}\x1f{key}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def variants_of(rules: Rules, assigned: Iterable[Assignment]) -> list[Variant]:
    """Return the variants that these assignments name, those that the rules still have."""
    found = ((rules.experiment(a.experiment), a.variant) for a in assigned)
    variants = (experiment.variant(name) for experiment, name in found if experiment is not None)
    return [variant for variant in variants if variant is not None]


def rules_under(rules: Rules, assigned: Sequence[Assignment]) -> Rules:
    """Return the rules by which a decision that is part of these experiments is made."""
    if not assigned:
        return rules
    tables = {name: table for variant in variants_of(rules, assigned) for name, table in variant.tables.items()}
    return replace(rules, **tables)  # type: ignore[arg-type]  # the fields of these names


def bundle_under(rules: Rules, assigned: Sequence[Assignment]) -> str:
    """Return the source of the bundle by which a decision is made, empty where it is the one that serves everybody."""
    return next((variant.bundle for variant in variants_of(rules, assigned) if variant.bundle), "")


def bundle_sources(rules: Rules) -> set[str]:
    """Return the sources of all bundles that variants name."""
    return {v.bundle for experiment in rules.experiments for v in experiment.variants if v.bundle}
