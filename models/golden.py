"""Golden questions: contexts made up from a bundle's own columns, the same for the same columns, and what the bundle answered when it was trained.

Golden rows hold every model to its scores. The answers hold what is made of the scores to what it was: features, calibration, rhythms, lags and curves. So a version
of the service that would read a bundle otherwise than it was trained refuses it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from models.context import ChannelOption, Contact, Content, Context, CustomerState, FeatureValue, Message
from models.features import CUSTOM_PREFIX, NO_SEND, Action, Column
from models.sms import TextSize

_COUNT = 6
_NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_ZONES = ("Europe/Moscow", "Asia/Vladivostok", "UTC")
_LAGS = (0, 7, 26)
"""Hours from the decision to the sends that are asked about."""
_MARGIN = 900_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A context, and the actions whose chances are asked for; no send the first."""

    context: Context
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenAnswer:
    """A question with the chances that a bundle answered, each of shape (len(actions),)."""

    question: Question
    p_response: tuple[float, ...]
    p_unsubscribe: tuple[float, ...]


def make_questions(columns: Sequence[Column]) -> tuple[Question, ...]:
    """Return questions about every channel of the columns, none where they name no channel."""
    categories = {column.name: column.categories for column in columns if column.kind == "category"}
    channels = tuple(c for c in categories.get("channel", ()) if c != NO_SEND)
    if not channels:
        return ()
    return tuple(_question(number, columns, categories, channels) for number in range(_COUNT))


def _question(
    number: int, columns: Sequence[Column], categories: dict[str, tuple[str, ...]], channels: tuple[str, ...]
) -> Question:
    def category(name: str) -> str:
        known = categories.get(name, ())
        return known[number % len(known)] if known else ""

    now = _NOON + 31 * number * _HOUR
    features: dict[str, FeatureValue] = {}
    for place, column in enumerate(columns):
        if column.name.startswith(CUSTOM_PREFIX) and (number + place) % _COUNT:
            name = column.name.removeprefix(CUSTOM_PREFIX)
            features[name] = category(column.name) if column.kind == "category" else float((number * place) % 7 - 3)
    step = 1 + number // 4
    context = Context(
        decision_id=f"golden-{number}",
        step=step,
        decide_time=now,
        not_before=now,
        customer=_customer(number, now, channels),
        message=Message(
            campaign="golden",
            kind=category("message_kind"),
            category="marketing",
            order_margin_micros=_MARGIN * (1 + number),
            earliest_time=now - (step - 1) * 9 * _HOUR,
            expire_time=now + (30 + 24 * number) * _HOUR,
            content=Content(size=TextSize(characters=60, encoding="gsm7", segments=1)),
            offer=category("offer"),
            journey_stage=category("journey_stage"),
            relevance_half_life_seconds=None if number % 2 else 86_400.0 * (1 + number),
        ),
        options=tuple(ChannelOption(channel=channel, is_reachable=True, has_consent=True) for channel in channels),
        seed=number,
        features=features,
        tried=() if step == 1 else channels[:1],
    )
    sends = [Action(channel=channel, send_time=now + lag * _HOUR) for channel in channels for lag in _LAGS]
    return Question(context=context, actions=(Action(channel=NO_SEND), *sends))


def _customer(number: int, now: datetime, channels: tuple[str, ...]) -> CustomerState:
    """Return somebody with a history, the first without one."""
    contacts = []
    for place in range(2 * number):
        start = now - (2 * number - place) * 17 * _HOUR
        contacts.append(
            Contact(
                decision_id=f"golden-{number}" if number >= 4 and place == 2 * number - 1 else f"earlier-{place}",
                channel=channels[0] if place == 2 * number - 1 else channels[place % len(channels)],
                topic="",
                category="marketing",
                start=start,
                end=start + _HOUR / 4,
                seen_time=start + _HOUR if place % 2 else None,
                click_time=start + 2 * _HOUR if place % 4 == 1 else None,
            )
        )
    hour = int(now.timestamp()) // 3600
    return CustomerState(
        key=f"golden-{number}",
        time_zone=_ZONES[number % len(_ZONES)],
        country="",
        contacts=tuple(contacts),
        order_times=tuple(now - days * 24 * _HOUR for days in (40, 9)[: number % 3]),
        active_hours=tuple(sorted({hour - 5 * place - 24 * (place % 3) for place in range(1, 4 * number)})),
    )
