"""A run as a decision log, in the form in which the service keeps its own."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import numpy as np

from training.journal import LoggedDecision, LoggedOutcome, customer_hash, customer_key
from training.world.clock import WEEK, to_time
from training.world.people import OFFSETS, Population
from training.world.protocol import Result
from training.world.run import World

KEY = bytes(32)
"""Key under which the simulated customers' ids are hashed; nobody is behind them."""
_VISIT_HOURS = 72


def log_customers(people: Population) -> list[bytes]:
    """Return the identities of all customers."""
    return [customer_hash(KEY, f"customer-{person}") for person in range(len(people))]


def logged_decisions(world: World, result: Result, *, with_visits: bool = False) -> Iterator[LoggedDecision]:
    """Yield the decisions of a run with their outcomes; a later step has a request of its own, so that its outcomes do.

    With visits, each first step carries the customer's own visits within 72 hours, which tell of the hour rhythm.
    """
    outcomes: dict[tuple[str, int], list[LoggedOutcome]] = {}
    for outcome in result.outcomes:
        found = LoggedOutcome(type=outcome.type, occur_time=outcome.occur_time, value_micros=outcome.value_micros)
        outcomes.setdefault((outcome.decision_id, max(outcome.step, 1)), []).append(found)
    hashes = log_customers(world.people)
    for step in result.steps:
        context = step.context
        index = world.index_of(context.decision_id)
        person = int(world.messages.person[index])
        mine = outcomes.get((context.decision_id, context.step), [])
        if with_visits and context.step == 1:
            mine = mine + visits(world, person, index)
        customer = replace(context.customer, key=customer_key(hashes[person]))
        suffix = "" if context.step == 1 else f"/step-{context.step}"
        yield LoggedDecision(
            request_id=context.decision_id + suffix,
            context=replace(context, customer=customer),
            action=step.reply.action,
            propensity=step.reply.propensity,
            price_micros=step.price_micros,
            policy="uniform",
            outcomes=tuple(mine),
        )


def visits(world: World, person: int, index: int) -> list[LoggedOutcome]:
    """Return the customer's own visits in the 72 hours from a message's arrival: Poisson by hour, at their rhythm."""
    people = world.people
    rng = np.random.default_rng([people.seed, 5, person, index])
    arrive = int(world.messages.arrive[index])
    cells = arrive + np.arange(_VISIT_HOURS)
    week = (cells + OFFSETS[people.zone[person]]) % WEEK
    counts = rng.poisson(people.activity[person] / 24 * people.rhythm[person, week])
    return [
        LoggedOutcome(type="visit", occur_time=to_time(int(hour)) + timedelta(minutes=int(rng.integers(60))))
        for hour in np.repeat(cells, counts)
    ]
