"""A run as a decision log, in the form in which the service keeps its own."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from models.eligibility import find_eligible
from models.features import NO_SEND
from training.journal import LoggedDecision, LoggedOutcome, customer_hash, customer_key
from training.world.clock import HALF_HOUR, to_time
from training.world.people import Population
from training.world.protocol import Ended, Outcome, Result, Step
from training.world.run import World

KEY = bytes(32)
"""Key under which the simulated customers' ids are hashed where no database has one of its own; nobody is behind them."""


def log_customers(people: Population, key: bytes = KEY) -> list[bytes]:
    """Return the identities of all customers."""
    return [customer_hash(key, f"customer-{person}") for person in range(len(people))]


def logged_visits(world: World, hashes: Sequence[bytes]) -> Iterator[tuple[str, LoggedOutcome]]:
    """Yield the visits that no message caused, up to the last message, each with its customer's key."""
    last = int(world.messages.arrive[-1]) if len(world.messages) else 0
    for person, identity_hash in enumerate(hashes):
        for hour in world.visits.hours[world.visits.begin[person] : world.visits.begin[person + 1]]:
            if hour < last:
                name = f"{world.name}/visit-{person}-{hour}"
                visit = LoggedOutcome(type="visit", occur_time=to_time(int(hour)) + HALF_HOUR, event_id=name)
                yield customer_key(identity_hash), visit


def logged_decisions(world: World, result: Result) -> Iterator[LoggedDecision]:
    """Yield the decisions of a run with their outcomes."""
    outcomes = _by_step(result.outcomes)
    hashes = log_customers(world.people)
    for step in result.steps:
        yield _logged(world, hashes, step, outcomes.get((step.context.decision_id, step.context.step), ()))


def logged_message(world: World, hashes: Sequence[bytes], ended: Ended) -> Iterator[LoggedDecision]:
    """Yield the decisions of a message that is over with their outcomes, under the customers' identities."""
    outcomes = _by_step(ended.outcomes)
    for step in ended.steps:
        yield _logged(world, hashes, step, outcomes.get((step.context.decision_id, step.context.step), ()))


def _by_step(outcomes: Iterable[Outcome]) -> dict[tuple[str, int], list[LoggedOutcome]]:
    """Return outcomes by decision and step; what follows no step is the first's."""
    found: dict[tuple[str, int], list[LoggedOutcome]] = {}
    for outcome in outcomes:
        logged = LoggedOutcome(type=outcome.type, occur_time=outcome.occur_time, value_micros=outcome.value_micros)
        found.setdefault((outcome.decision_id, max(outcome.step, 1)), []).append(logged)
    return found


def _logged(world: World, hashes: Sequence[bytes], step: Step, outcomes: Sequence[LoggedOutcome]) -> LoggedDecision:
    """Return a step as a logged decision; a later one has a request of its own, so that its outcomes do."""
    context = step.context
    person = int(world.messages.person[world.index_of(context.decision_id)])
    customer = replace(context.customer, key=customer_key(hashes[person]))
    suffix = "" if context.step == 1 else f"/step-{context.step}"
    return LoggedDecision(
        request_id=context.decision_id + suffix,
        context=replace(context, customer=customer),
        action=step.reply.action,
        propensity=step.reply.propensity,
        price_micros=step.price_micros,
        policy="uniform",
        outcomes=tuple(outcomes),
        trainable=_had_choice(world, step),
        distribution=step.reply.distribution,
    )


def _had_choice(world: World, step: Step) -> bool:
    """Tell whether there was anything to choose from; only a certain no send may have been for want of it."""
    if step.reply.action.channel != NO_SEND or step.reply.propensity < 1:
        return True
    return bool(find_eligible(step.context, world.rules).eligible)
