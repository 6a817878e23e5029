"""Messages that compete: several to one person in the same hour, decided one after another or together."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from models.context import Context
from models.features import NO_SEND, Action
from tests.training_world.worlds import STATIONARY, small_world
from training.world.messages import KINDS, NEWSLETTER, WELCOME, make_messages
from training.world.people import CHANNELS, make_population
from training.world.policies import JointOracle, NoSend, Oracle, Uniform
from training.world.protocol import JointPolicy, Reply
from training.world.run import World
from training.world.scenarios import world_rules

COUNT = 400


@pytest.fixture(scope="module")
def world() -> World:
    people = make_population(300, 6)
    messages = make_messages(people, COUNT, 0, 7 * 24, 6, burst_share=0.5)
    return World(people, messages, STATIONARY, world_rules(), 6)


def bursts(world: World) -> Counter[tuple[int, int]]:
    """How many messages each person got in each hour, where more than one."""
    messages = world.messages
    found = Counter(zip(messages.person.tolist(), messages.arrive.tolist(), strict=True))
    return Counter({key: count for key, count in found.items() if count > 1})


class Together(NoSend):
    """Sends nothing, and keeps which messages it was asked for together."""

    def __init__(self) -> None:
        self.groups: list[list[Context]] = []
        self.alone = 0

    def decide(self, context: Context) -> Reply:
        self.alone += 1
        return Reply(action=Action(channel=NO_SEND))

    def decide_together(self, contexts: Sequence[Context]) -> list[Reply]:
        self.groups.append(list(contexts))
        return [Reply(action=Action(channel=NO_SEND)) for _ in contexts]


def test_bursts_are_as_many_as_asked_for(world: World) -> None:
    """About half of the messages join another one's hour and customer; without the option hardly any does, and none has a priority."""
    plain = small_world(count=COUNT)
    in_bursts = sum(bursts(world).values())

    assert 0.5 * COUNT < in_bursts < 0.95 * COUNT
    assert sum(bursts(plain).values()) < 0.05 * COUNT
    assert plain.messages.priority.max() == 0
    assert plain.context(0).message.priority == 0


def test_priorities_are_told_by_kind(world: World) -> None:
    """Carts come before newsletters; a caller tells the priority, and only new customers are welcomed."""
    messages = world.messages
    by_kind = {KINDS[k]: set(messages.priority[messages.kind == k].tolist()) for k in set(messages.kind.tolist())}

    assert all(len(found) == 1 for found in by_kind.values())
    assert by_kind["abandoned_cart"].pop() > by_kind["cross_sell"].pop() > by_kind["newsletter"].pop()
    index = int(np.argmax(messages.priority))
    assert world.context(index).message.priority == messages.priority[index] > 0
    assert set(world.people.stage[messages.person[messages.kind == WELCOME]]) <= {0}
    together = [set(messages.kind[(messages.person == p) & (messages.arrive == h)]) for p, h in bursts(world)]
    assert any(NEWSLETTER in kinds and len(kinds) > 1 for kinds in together)


def test_the_same_messages_come_with_and_without_bursts() -> None:
    """Bursts move messages to others' customers and hours; their texts stay, and so do all that do not join."""
    people = make_population(300, 6)
    plain, burst = (make_messages(people, COUNT, 0, 7 * 24, 6, burst_share=share) for share in (0.0, 0.5))

    assert sorted(plain.characters) == sorted(burst.characters)
    kept = Counter(zip(plain.person, plain.arrive, plain.margin, strict=True)) & Counter(
        zip(burst.person, burst.arrive, burst.margin, strict=True)
    )
    assert 0.4 * COUNT < kept.total() < 0.65 * COUNT


def test_who_decides_together_is_asked_once_for_each_burst(world: World) -> None:
    """Every burst is asked for at once, each message once, with contexts of one person and hour; the rest alone."""
    policy = Together()
    assert isinstance(policy, JointPolicy)
    assert not isinstance(Oracle(world), JointPolicy)

    result = world.run(policy)

    assert sorted(len(group) for group in policy.groups) == sorted(bursts(world).values())
    assert policy.alone + sum(map(len, policy.groups)) == len(result.steps) == COUNT
    assert len({s.context.decision_id for s in result.steps}) == COUNT
    for group in policy.groups:
        assert len({(c.customer.key, c.decide_time) for c in group}) == 1
    assert sorted(e.index for e in world.play(Together())) == list(range(COUNT))


def test_one_after_another_sees_what_was_booked(world: World) -> None:
    """Asked one by one, the later messages of a burst are decided with the contact that an earlier one booked."""
    steps = [s for s in world.run(Uniform(world.rules)).steps if s.context.step == 1]
    before: dict[tuple[str, object], str] = {}
    seen = 0
    for step in steps:
        key = (step.context.customer.key, step.context.decide_time)
        if key in before:
            seen += before[key] in {c.decision_id for c in step.context.customer.contacts}
        if step.reply.action.send_time is not None:
            before[key] = step.context.decision_id

    assert seen > 20


def test_deciding_together_is_worth_more(world: World) -> None:
    """Over bursts the oracle that plans them together earns more than the one that plans each as it comes."""
    alone, together = world.run(Oracle(world)), world.run(JointOracle(world))

    assert together.expected.net > alone.expected.net > 0


def test_plans_made_together_keep_the_caps(world: World) -> None:
    """Of messages planned together no more is to be sent in a day than the cap allows, and through no channel more than its cap."""
    policy = JointOracle(world)
    groups: dict[object, list[str]] = {}
    for step in world.run(policy).steps:
        if step.context.step == 1:
            key = (step.context.customer.key, step.context.decide_time)
            groups.setdefault(key, []).append(step.context.decision_id)

    most = 0
    for group in groups.values():
        sends = [send for name in group for send in policy._plans[name].sends]
        for cap in world.rules.caps:
            hours = [s.hour for s in sends if cap.channel in ("*", CHANNELS[s.channel])]
            busiest = max((sum(h <= other < h + cap.window_hours for other in hours) for h in hours), default=0)
            assert busiest <= cap.limit
            most = max(most, busiest)
    assert most >= 3
