"""What callers ask for, checked and in the words of models: the border between the rpc edge and the use cases."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from models.context import Constraints, Content, FeatureValue, Mode
from models.rules import Category, Consent
from service.store.profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whom a request is about. `identities` are (kind, value), never empty; nothing here is ever logged."""

    identities: tuple[tuple[str, str], ...] = field(repr=False)
    time_zone: str = ""
    locale: str = ""
    country: str = ""
    features: Mapping[str, FeatureValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedChannel:
    """A channel as the caller offers it; None where the caller does not say."""

    channel: str
    is_reachable: bool | None = None
    consent: Consent | None = None
    price_override_micros: int | None = None
    content: Content | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedMessage:
    """A message as asked; times are None where the caller leaves them to the service."""

    campaign: str
    kind: str
    category: Category
    order_margin_micros: int
    content: Content
    topic: str
    offer: str
    journey_stage: str
    relevance_half_life_seconds: float | None
    earliest_time: datetime | None
    expire_time: datetime | None
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChooseRequest:
    """A checked ChooseChannelRequest. `body` is what idempotency compares: the request without its view."""

    request_id: str
    body: bytes = field(repr=False)
    person: Person
    message: AskedMessage
    channels: tuple[AskedChannel, ...]
    features: Mapping[str, FeatureValue]
    constraints: Constraints
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceRequest:
    """A checked AdvanceCascadeRequest."""

    decision_id: str
    completed_step: int
    channels: tuple[AskedChannel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedOutcome:
    """A checked Outcome; exactly as much is known as the caller said."""

    event_id: str
    body: bytes = field(repr=False)
    decision_id: str
    step: int
    type: str
    occur_time: datetime
    value_micros: int | None
    cost_micros: int | None
    machine_generated: bool
    csat: int | None
    nps: int | None
    person: Person | None
    revenue_micros: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpsertRequest:
    """A checked Customer."""

    person: Person
    profile: Profile
