"""What is known when a decision is made: values only, complete enough to make the same decision again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from models.budget import BudgetState
from models.correction import Factors
from models.rules import Category, FreeFirstMode
from models.sms import TextSize

FeatureValue = float | str | bool


class Mode(StrEnum):
    """What a decision may do in the world."""

    LIVE = "live"
    SHADOW = "shadow"
    DRY_RUN = "dry_run"


class Verdict(StrEnum):
    """The one end of every request."""

    SEND = "send"
    DEFER = "defer"
    DO_NOT_SEND = "do_not_send"
    HOLDOUT = "holdout"


class Reason(StrEnum):
    """Why a channel was not eligible; the names are those of the contract."""

    NO_CONSENT = "no_consent"
    UNREACHABLE = "unreachable"
    QUIET_HOURS = "quiet_hours"
    FREQUENCY_CAP = "frequency_cap"
    TOPIC_CAP = "topic_cap"
    BUDGET_EXHAUSTED = "budget_exhausted"
    PRICE_ABOVE_VALUE = "price_above_value"
    EXPIRES_FIRST = "expires_first"
    CONTENT_UNFIT = "content_unfit"
    CHANNEL_PAUSED = "channel_paused"
    FREE_CHANNEL_UNTRIED = "free_channel_untried"
    NOT_ALLOWED = "not_allowed"
    MAX_COST_EXCEEDED = "max_cost_exceeded"
    ALREADY_TRIED = "already_tried"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    NO_PRICE = "no_price"


class CascadeEnd(StrEnum):
    """Why a cascade ended."""

    ORDERED = "ordered"
    CLICKED = "clicked"
    UNSUBSCRIBED = "unsubscribed"
    EXPIRED = "expired"
    NO_STEP_LEFT = "no_step_left"
    MAX_STEPS = "max_steps"


class DegradedCause(StrEnum):
    """Why a decision was made with less than everything."""

    NO_BUNDLE = "no_bundle"
    SCORING_FAILED = "scoring_failed"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    DEADLINE_NEAR = "deadline_near"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a message needs of a channel; the text itself is never kept."""

    size: TextSize
    has_image: bool = False


MOST_ACTIVE_HOURS = 96
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)


def latest_hours(moments: Iterable[datetime]) -> tuple[int, ...]:
    """Return the latest whole hours since 1970 in UTC that hold any of these moments, in order, each once."""
    return tuple(sorted({(moment - _EPOCH) // _HOUR for moment in moments})[-MOST_ACTIVE_HOURS:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """One message that this customer has got or will get: sent between `start` and `end`."""

    decision_id: str
    channel: str
    topic: str
    category: Category
    start: datetime
    end: datetime
    step: int = 1
    seen_time: datetime | None = None
    """When it was first seen, opened or clicked by a person; None: not yet, or nobody tells."""
    click_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerState:
    """One person across all channels, as known at decision time."""

    key: str
    time_zone: str
    country: str
    locale: str = ""
    contacts: tuple[Contact, ...] = ()
    """By start."""
    order_times: tuple[datetime, ...] = ()
    """By time."""
    active_hours: tuple[int, ...] = ()
    """Whole hours since 1970 in UTC in which they visited, looked at a message or ordered: the latest, in order, each once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message for one customer. Money in micros of the rules' currency."""

    campaign: str
    kind: str
    category: Category
    order_margin_micros: int
    earliest_time: datetime
    expire_time: datetime
    content: Content
    topic: str = ""
    offer: str = ""
    journey_stage: str = ""
    relevance_half_life_seconds: float | None = None
    priority: int = 0

    @property
    def is_owed(self) -> bool:
        """Whether the customer is owed the message, so that no send is not an option while a channel is eligible."""
        return self.category != "marketing"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOption:
    """One channel the caller can send through, request and profile taken together."""

    channel: str
    is_reachable: bool
    has_consent: bool
    price_override_micros: int | None = None
    content: Content | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Limits that the caller sets on one decision; empty tuples and None limit nothing."""

    allowed_channels: tuple[str, ...] = ()
    denied_channels: tuple[str, ...] = ()
    max_cost_micros: int | None = None
    free_first: FreeFirstMode | None = None
    max_steps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The variant of an experiment that a customer is in."""

    experiment: str
    variant: str
    probability: float
    """P(variant | exposed to the experiment), when the customer first was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything that one decision is made from, beside rules and bundle.

    `earliest_time` of the message bounds the first step; a later step has `not_before` of its own. `seed` is the draw's.
    """

    decision_id: str
    step: int
    decide_time: datetime
    not_before: datetime
    customer: CustomerState
    message: Message
    options: tuple[ChannelOption, ...]
    seed: int
    constraints: Constraints = field(default_factory=Constraints)
    features: Mapping[str, FeatureValue] = field(default_factory=dict)
    tried: tuple[str, ...] = ()
    """Channels that earlier steps of this cascade used."""
    overdue: tuple[str, ...] = ()
    """Those of them whose delivery nobody confirmed in time: caps count their sends, plans expect nothing more of them."""
    paused: tuple[str, ...] = ()
    factors: Factors = field(default_factory=dict)
    """What has been learned since the bundle was trained, by stage and channel."""
    reserved: tuple[Contact, ...] = ()
    """Planned sends of messages decided together with this one; caps count them, features do not."""
    budgets: tuple[BudgetState, ...] = ()
    """Those that count the message, as they were before this decision."""
    mode: Mode = Mode.LIVE
    experiments: tuple[Assignment, ...] = ()
    """Experiments that the decision is part of: it is made by the rules of their variants, `models.experiments.rules_under`."""

    def option(self, channel: str) -> ChannelOption:
        """Return the option of that channel; raises KeyError where the caller has none."""
        for option in self.options:
            if option.channel == channel:
                return option
        raise KeyError(channel)

    def contact(self, channel: str, start: datetime, end: datetime) -> Contact:
        """Return the contact that a send of this message is, so that caps count it."""
        message = self.message
        return Contact(
            decision_id=self.decision_id,
            channel=channel,
            topic=message.topic,
            category=message.category,
            start=start,
            end=end,
        )

    def content(self, channel: str) -> Content:
        """Return the content as it would go through that channel."""
        return self.option(channel).content or self.message.content
