"""What a trained bundle believes of each stage, held against the exact truth of the world it was trained on.

The bundle has seen 10,000 random single sends; it is asked about what the logging policy does in the next days, in cascades of up to three. Its chances
are compared with the truth's in groups: summed, so that what the bundle is not told (traits of customers) evens out. A group that had n events in the log is
known to one part in the root of n; a bundle's rate may be off by three of these, and by what its family of models cannot say, stated with each stage.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from models.curves import made_before
from tests.training_world.beliefs import ASKED, LOGGED, Trained
from training.world.clock import to_hour
from training.world.policies import Uniform
from training.world.truth_table import truth_row

FloatArray = NDArray[np.float64]
DECILES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A send with what the bundle believes and what is true: chances of being noticed, clicked, refused, and of an order caused and one anyway."""

    channel: str
    kind: str
    step: int
    hour: int
    contacts: int
    believed: FloatArray
    true: FloatArray


NOTICE, CLICK, REFUSE, CAUSE, ANYWAY = range(5)


@pytest.fixture(scope="module")
def asked(trained: Trained) -> list[Asked]:
    world, funnel = trained.world, trained.bundle.funnel
    assert funnel is not None
    found = []
    for step in world.run(Uniform(world.rules, 3)).steps:
        action, context = step.reply.action, step.context
        if action.send_time is None:
            continue
        send = (action.channel, action.send_time.timestamp() / 3600)
        curves = funnel.curves(context, [send], made_before(context), 1e6, 1e6)
        row = truth_row(world, step)
        week = context.decide_time.timestamp() - 7 * 86_400
        found.append(
            Asked(
                channel=action.channel,
                kind=context.message.kind,
                step=context.step,
                hour=to_hour(action.send_time) % 24,
                contacts=sum(c.start.timestamp() > week for c in context.customer.contacts),
                believed=np.array(
                    [curves.p_notice[0], curves.p_click[0], curves.p_unsubscribe[0], curves.uplift[0], curves.p_organic]
                ),
                true=np.array([row.seen, row.clicked, row.unsubscribed, row.caused_orders, row.ordered_anyway]),
            )
        )
    return found


def sum_of(sends: Sequence[Asked], stage: int) -> tuple[float, float]:
    """What is believed and what is true of a stage, summed."""
    return sum(float(a.believed[stage]) for a in sends), sum(float(a.true[stage]) for a in sends)


def check_groups(
    sends: Sequence[Asked],
    group: Callable[[Asked], Hashable],
    stage: int,
    within: int | None = None,
    *,
    family: float,
    least: float = 5.0,
) -> None:
    """Check a stage, as a share of another where one is named, in each group of which the log had at least so many events.

    The log is to what is asked as its decisions are to these; so is the number of events that a group had in it.
    """
    groups: dict[Hashable, list[Asked]] = {}
    for send in sends:
        groups.setdefault(group(send), []).append(send)
    checked = 0
    for name, mine in groups.items():
        believed, true = sum_of(mine, stage)
        events = true * LOGGED / ASKED
        if events < least:
            continue
        if within is not None:
            seen, there = sum_of(mine, within)
            believed, true = believed / seen, true / there
        assert believed == pytest.approx(true, rel=3 / np.sqrt(events) + family), name
        checked += 1
    assert checked >= min(len(groups), 3)


def first(sends: Sequence[Asked]) -> list[Asked]:
    """Those of first steps: all that the log held."""
    return [send for send in sends if send.step == 1]


def by_decile(sends: Sequence[Asked], chance: Callable[[Asked], float]) -> Callable[[Asked], Hashable]:
    """Group sends by tenths of what is believed of them."""
    edges = np.quantile([chance(send) for send in sends], np.arange(1, DECILES) / DECILES)
    return lambda send: int(np.searchsorted(edges, chance(send)))


def test_noticing_is_believed_by_channel_and_hour(asked: list[Asked]) -> None:
    """P(noticed) by channel, by part of the day of the send, and by tenths of what is believed; the family's tenth is for traits told in part."""
    sends = first(asked)

    check_groups(sends, lambda send: send.channel, NOTICE, family=0.1)
    check_groups(sends, lambda send: send.hour // 3, NOTICE, family=0.1)
    check_groups(sends, by_decile(sends, lambda send: float(send.believed[NOTICE])), NOTICE, family=0.1)


def test_clicking_is_believed_of_who_noticed(asked: list[Asked]) -> None:
    """P(clicked | noticed) by channel, by kind, and by tenths of what is believed; intent, which nobody tells, takes a tenth and a half."""
    sends = first(asked)

    check_groups(sends, lambda send: send.channel, CLICK, NOTICE, family=0.15)
    check_groups(sends, lambda send: send.kind, CLICK, NOTICE, family=0.15)
    tenth = by_decile(sends, lambda send: float(send.believed[CLICK] / send.believed[NOTICE]))
    check_groups(sends, tenth, CLICK, NOTICE, family=0.15)


def test_caused_orders_are_believed_on_the_whole(asked: list[Asked]) -> None:
    """Orders caused of those who clicked: a log of this size has some thirty, so that the sum over all, and over carts and the rest, is all it can say."""
    sends = first(asked)

    check_groups(sends, lambda send: "all", CAUSE, CLICK, family=0.2)
    check_groups(sends, lambda send: send.kind in ("abandoned_cart", "abandoned_view"), CAUSE, CLICK, family=0.3)


def test_orders_anyway_are_believed_with_those_of_other_messages(asked: list[Asked]) -> None:
    """P(order anyway): never below this message's own, and above by what other messages and their organic orders bring in three days: up to half."""
    believed, own = sum_of(first(asked), ANYWAY)
    error = 3 / np.sqrt(own * LOGGED / ASKED)

    assert own * (1 - error) < believed < own * (1.5 + error)
    sends = first(asked)
    half = by_decile(sends, lambda send: float(send.believed[ANYWAY]))
    low, high = ([send for send in sends if (int(str(half(send))) >= 5) is is_high] for is_high in (False, True))
    assert sum_of(high, ANYWAY)[1] > 2 * sum_of(low, ANYWAY)[1]


def test_refusing_is_believed_by_channel_step_and_contacts(asked: list[Asked]) -> None:
    """P(refused | noticed) by channel, by step, and by contacts of the week, though the log has no later steps and some eighty refusals: so that later
    steps are not taken for harmless. What shrinking takes from channels with few refusals is two fifths."""
    check_groups(first(asked), lambda send: "all", REFUSE, NOTICE, family=0.15)
    check_groups(first(asked), lambda send: send.channel, REFUSE, NOTICE, family=0.4)
    check_groups(asked, lambda send: send.step, REFUSE, NOTICE, family=0.25)
    check_groups(asked, lambda send: min(send.contacts, 3), REFUSE, NOTICE, family=0.25)


def test_later_steps_are_believed_of_what_the_log_can_say(asked: list[Asked]) -> None:
    """A log of single sends knows later steps by their contacts and by being ignored alone: noticing is right within a tenth, clicking within two fifths."""
    later = [send for send in asked if send.step > 1]

    check_groups(later, lambda send: send.step, NOTICE, family=0.1, least=1)
    check_groups(later, lambda send: send.step, CLICK, NOTICE, family=0.4, least=1)
