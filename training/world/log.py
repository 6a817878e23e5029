"""A run as a decision log, in the form in which the service keeps its own."""

from collections.abc import Iterator
from dataclasses import replace

from training.journal import LoggedDecision, LoggedOutcome, customer_hash, customer_key
from training.world.people import Population
from training.world.protocol import Result
from training.world.run import World

KEY = bytes(32)
"""Key under which the simulated customers' ids are hashed; nobody is behind them."""


def log_customers(people: Population) -> list[bytes]:
    """Return the identities of all customers."""
    return [customer_hash(KEY, f"customer-{person}") for person in range(len(people))]


def logged_decisions(world: World, result: Result) -> Iterator[LoggedDecision]:
    """Yield the decisions of a run with their outcomes; a later step has a request of its own, so that its outcomes do."""
    outcomes: dict[tuple[str, int], list[LoggedOutcome]] = {}
    for outcome in result.outcomes:
        found = LoggedOutcome(type=outcome.type, occur_time=outcome.occur_time, value_micros=outcome.value_micros)
        outcomes.setdefault((outcome.decision_id, max(outcome.step, 1)), []).append(found)
    hashes = log_customers(world.people)
    for step in result.steps:
        context = step.context
        person = int(world.messages.person[world.index_of(context.decision_id)])
        mine = outcomes.get((context.decision_id, context.step), [])
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
