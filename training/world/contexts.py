"""What the service is told when it decides: contexts of the world's messages."""

from collections.abc import Iterable, Set
from datetime import datetime

from models.context import ChannelOption, Contact, Content, Context, CustomerState, Message
from models.decide import make_seed
from models.sms import measure_length
from training.world.clock import to_time
from training.world.messages import CATEGORIES, KINDS, Messages
from training.world.people import CHANNELS, PRODUCTS, STAGES, Population
from training.world.zones import COUNTRIES, ZONES


def make_context(
    people: Population,
    messages: Messages,
    index: int,
    *,
    decision_id: str,
    request_id: str,
    step: int,
    hour: int,
    contacts: Iterable[Contact],
    orders: Iterable[datetime],
    active_hours: tuple[int, ...],
    withdrawn: Set[tuple[int, int]],
    tried: tuple[str, ...],
) -> Context:
    """Return what is known when a step of a message is decided at an hour; `withdrawn` are pairs of customer and channel."""
    person, now = int(messages.person[index]), to_time(hour)
    return Context(
        decision_id=decision_id,
        step=step,
        decide_time=now,
        not_before=now,
        customer=CustomerState(
            key=f"customer-{person}",
            time_zone=ZONES[people.zone[person]],
            country=COUNTRIES[people.zone[person]],
            contacts=tuple(sorted(contacts, key=lambda c: c.start)),
            order_times=tuple(t for t in sorted(orders) if t <= now),
            active_hours=active_hours,
        ),
        message=_message(people, messages, index),
        options=tuple(
            ChannelOption(
                channel=channel,
                is_reachable=bool(people.reachable[person, c]),
                has_consent=bool(people.consent[person, c]) and (person, c) not in withdrawn,
            )
            for c, channel in enumerate(CHANNELS)
        ),
        seed=make_seed(request_id, step),
        features={
            **people.features(person),
            "product": PRODUCTS[messages.product[index]],
            "product_views_30d": float(people.product_views[person, messages.product[index]]),
        },
        tried=tried,
    )


def _message(people: Population, messages: Messages, index: int) -> Message:
    kind, product = KINDS[messages.kind[index]], PRODUCTS[messages.product[index]]
    size = measure_length(int(messages.characters[index]), "ucs2")
    return Message(
        campaign=kind,
        kind=kind,
        category=CATEGORIES[messages.kind[index]],
        order_margin_micros=round(messages.margin[index] * 1e6),
        earliest_time=to_time(int(messages.arrive[index])),
        expire_time=to_time(int(messages.arrive[index] + messages.lifetime[index])),
        content=Content(size=size, has_image=bool(messages.has_image[index])),
        topic=f"{kind}/{product}",
        offer="deal" if messages.is_deal[index] else "plain",
        journey_stage=STAGES[people.stage[messages.person[index]]],
        priority=int(messages.priority[index]),
        relevance_half_life_seconds=float(messages.half_life[index]) * 3600,
    )
