"""From the contract's messages to checked requests: every field that is wrong is named, all at once."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from zoneinfo import ZoneInfoNotFoundError

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as Proto
from google.protobuf.timestamp_pb2 import Timestamp

from models.context import Constraints, Content, FeatureValue, Mode
from models.errors import InvalidInput, Violation
from models.local_time import zone
from models.rules import Category, Consent, FreeFirstMode, Rules
from models.sms import Encoding, TextSize, measure, measure_length
from service.clock import Observe
from service.gen.channelchoice.v1 import channel_choice_service_pb2 as choice_pb
from service.gen.channelchoice.v1 import customer_pb2 as customer_pb
from service.gen.channelchoice.v1 import decision_pb2 as decision_pb
from service.gen.channelchoice.v1 import feature_pb2 as feature_pb
from service.gen.channelchoice.v1 import message_pb2 as message_pb
from service.gen.channelchoice.v1 import money_pb2 as money_pb
from service.gen.channelchoice.v1 import outcome_pb2 as outcome_pb
from service.requests import (
    AdvanceRequest,
    AskedChannel,
    AskedMessage,
    ChooseRequest,
    Person,
    ReportedOutcome,
    UpsertRequest,
)
from service.store.profile import ConsentRecord, Profile

T = TypeVar("T")
_FEATURE_NAME = re.compile(r"[a-z0-9_.]{1,64}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_MAX_MICROS = 10**15
_MAX_TEXT = 10_000
_MAX_LIFETIME = timedelta(days=60)
_MAX_HALF_LIFE = timedelta(days=365)
_EARLIEST_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST_TIME = datetime(2100, 1, 1, tzinfo=UTC)
_CATEGORIES: Mapping[int, Category] = {
    message_pb.MESSAGE_CATEGORY_MARKETING: "marketing",
    message_pb.MESSAGE_CATEGORY_SERVICE: "service",
    message_pb.MESSAGE_CATEGORY_TRANSACTIONAL: "transactional",
}
_MODES: Mapping[int, Mode] = {
    decision_pb.DECISION_MODE_UNSPECIFIED: Mode.LIVE,
    decision_pb.DECISION_MODE_LIVE: Mode.LIVE,
    decision_pb.DECISION_MODE_SHADOW: Mode.SHADOW,
    decision_pb.DECISION_MODE_DRY_RUN: Mode.DRY_RUN,
}
_FREE_FIRST: Mapping[int, FreeFirstMode | None] = {
    message_pb.FREE_FIRST_UNSPECIFIED: None,
    message_pb.FREE_FIRST_BY_VALUE: "by_value",
    message_pb.FREE_FIRST_STRICT: "strict",
}
_VIEWS: Mapping[int, bool] = {
    decision_pb.DECISION_VIEW_UNSPECIFIED: False,
    decision_pb.DECISION_VIEW_BASIC: False,
    decision_pb.DECISION_VIEW_FULL: True,
}
_ENCODINGS: Mapping[int, Encoding] = {
    message_pb.TEXT_ENCODING_UNSPECIFIED: "ucs2",
    message_pb.TEXT_ENCODING_GSM7: "gsm7",
    message_pb.TEXT_ENCODING_UCS2: "ucs2",
}
_REACHABILITY: Mapping[int, bool | None] = {
    customer_pb.REACHABILITY_UNSPECIFIED: None,
    customer_pb.REACHABILITY_REACHABLE: True,
    customer_pb.REACHABILITY_UNREACHABLE: False,
}
_CONSENTS: Mapping[int, Consent | None] = {
    customer_pb.CONSENT_STATE_UNSPECIFIED: None,
    customer_pb.CONSENT_STATE_GRANTED: "granted",
    customer_pb.CONSENT_STATE_DENIED: "denied",
}
_PURCHASES = frozenset({"order", "store_purchase", "return"})


class NamedEnum(Protocol):
    """What protobuf's enum types have in common."""

    def Name(self, number: Any) -> str:  # noqa: N802  # protobuf's name
        """Return the name of a value; raises ValueError where there is none."""
        ...


class Checker:
    """Gathers violations while a message is read."""

    def __init__(self, rules: Rules, now: datetime) -> None:
        self.rules = rules
        self.now = now
        self.violations: list[Violation] = []

    def refuse(self, field: str, description: str) -> None:
        self.violations.append(Violation(field=field, description=description))

    def finish(self) -> None:
        """Raise InvalidInput where anything was refused."""
        if self.violations:
            raise InvalidInput(self.violations)

    def text(self, field: str, value: str, most: int, *, is_required: bool = False) -> str:
        if is_required and not value:
            self.refuse(field, f"is required: 1 to {most} characters")
        elif len(value) > most:
            self.refuse(field, f"has {len(value)} characters, at most {most} are allowed")
        elif "\0" in value:
            self.refuse(field, "has a NUL character, which no database keeps in a text; leave it out")
        return value

    def count(self, field: str, values: Iterable[object], least: int, most: int) -> None:
        number = len(list(values))
        if not least <= number <= most:
            self.refuse(field, f"has {number} entries, {least} to {most} are allowed")

    def whole(self, field: str, value: int, least: int, most: int) -> int:
        if not least <= value <= most:
            self.refuse(field, f"is {value}, {least} to {most} is allowed")
        return value

    def choice(self, field: str, enum: NamedEnum, table: Mapping[Any, T], value: int, default: T) -> T:
        """Return what an enum's value stands for; values that the table lacks are refused."""
        if value in table:
            return table[value]
        allowed = ", ".join(enum.Name(number) for number in table)
        self.refuse(field, f"is {_enum_name(enum, value)}; use one of {allowed}")
        return default

    def channel(self, field: str, key: str) -> str:
        if key not in self.rules.channels:
            self.refuse(field, f"unknown channel {key!r}; the registry has {', '.join(sorted(self.rules.channels))}")
        return key

    def money(self, field: str, owner: Proto, name: str, *, is_required: bool = False) -> int | None:
        """Return a money field in micros, None where it is not set."""
        if not owner.HasField(name):
            if is_required:
                self.refuse(field, f"is required: micros and currency, such as 900000000 {self.rules.currency}")
            return None
        money: money_pb.Money = getattr(owner, name)
        if money.currency != self.rules.currency:
            said = f"is {money.currency!r}" if money.currency else "is empty"
            self.refuse(
                f"{field}.currency", f"{said}; all amounts are in {self.rules.currency}, the rules file's currency"
            )
        if money.micros < 0:
            self.refuse(f"{field}.micros", f"is {money.micros}; must not be negative")
        elif money.micros > _MAX_MICROS:
            self.refuse(f"{field}.micros", f"is {money.micros}; at most {_MAX_MICROS} is allowed")
        return money.micros

    def moment(self, field: str, owner: Proto, name: str, *, is_required: bool = False) -> datetime | None:
        """Return a time, None where it is not set."""
        if not owner.HasField(name):
            if is_required:
                self.refuse(field, "is required")
            return None
        stamp: Timestamp = getattr(owner, name)
        try:
            moment = stamp.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError):
            moment = None
        if moment is None or not 0 <= stamp.nanos < 1_000_000_000 or not _EARLIEST_TIME <= moment <= _LATEST_TIME:
            self.refuse(field, "is not a time between 2000 and 2100")
            return None
        return moment

    def duration(self, field: str, owner: Proto, name: str, most: timedelta) -> float | None:
        """Return a positive duration in seconds, None where it is not set."""
        if not owner.HasField(name):
            return None
        duration: Duration = getattr(owner, name)
        seconds = duration.seconds + duration.nanos / 1e9
        if not 0 < seconds <= most.total_seconds():
            self.refuse(field, f"is {seconds:g} s; more than 0 and at most {most.days} days is allowed")
        return seconds

    def features(self, field: str, values: Mapping[str, feature_pb.FeatureValue]) -> dict[str, FeatureValue]:
        self.count(field, values, 0, 64)
        found: dict[str, FeatureValue] = {}
        for name, value in values.items():
            kind = value.WhichOneof("kind")
            if kind == "number" and _FEATURE_NAME.fullmatch(name) and math.isfinite(number := value.number):
                found[name] = number  # as most are; a path is made for others alone
                continue
            path = f"{field}[{name!r}]"
            if not _FEATURE_NAME.fullmatch(name):
                self.refuse(path, "names of features are 1 to 64 of a-z, 0-9, _ and .")
            if kind is None:
                self.refuse(path, "has no value; set number, text or flag, or leave it out where it is unknown")
            elif kind == "number" and not math.isfinite(value.number):
                self.refuse(
                    f"{path}.number", f"is {value.number}; send a finite number, or leave it out where it is unknown"
                )
            elif kind == "text":
                found[name] = self.text(f"{path}.text", value.text, 128, is_required=True)
            else:
                found[name] = getattr(value, kind)
        return found

    def person(self, field: str, ref: customer_pb.CustomerRef) -> Person:
        identities = [("customer", self.text(f"{field}.customer_id", ref.customer_id, 128))] if ref.customer_id else []
        self.count(f"{field}.identities", ref.identities, 0, 16)
        for index, identity in enumerate(ref.identities):
            path = f"{field}.identities[{index}]"
            kinds = {number: name for name, number in customer_pb.IdentityType.items() if number}
            kind = self.choice(f"{path}.type", customer_pb.IdentityType, kinds, identity.type, "")
            value = self.text(f"{path}.value", identity.value, 256, is_required=True)
            identities.append((kind.removeprefix("IDENTITY_TYPE_").lower(), value))
        if not identities:
            self.refuse(field, "customer_id or at least one identity is required")
        if ref.country and not _COUNTRY.fullmatch(ref.country):
            self.refuse(f"{field}.country", f"{ref.country!r} is not an ISO 3166-1 alpha-2 code such as RU")
        if ref.time_zone and not is_zone(ref.time_zone):
            self.refuse(f"{field}.time_zone", f"unknown IANA zone {ref.time_zone!r}; send one such as Europe/Moscow")
        return Person(
            identities=tuple(dict.fromkeys(identities)),
            time_zone=ref.time_zone,
            locale=self.text(f"{field}.locale", ref.locale, 35),
            country=ref.country,
            features=self.features(f"{field}.features", ref.features),
        )

    def content(self, field: str, content: message_pb.Content) -> Content:
        encoding = self.choice(f"{field}.encoding", message_pb.TextEncoding, _ENCODINGS, content.encoding, "ucs2")
        length = self.whole(f"{field}.length_characters", content.length_characters, 0, _MAX_TEXT)
        if content.text:
            text = self.text(f"{field}.text", content.text, _MAX_TEXT)
            size: TextSize = measure(text[:_MAX_TEXT])
        else:
            size = measure_length(max(length, 0), encoding)
        return Content(size=size, has_image=content.has_image)

    def channels(self, field: str, options: Iterable[message_pb.ChannelOption], least: int) -> tuple[AskedChannel, ...]:
        options = list(options)
        self.count(field, options, least, 32)
        found = [self._channel_option(f"{field}[{index}]", option) for index, option in enumerate(options)]
        seen: set[str] = set()
        for index, asked in enumerate(found):
            if asked.channel in seen:
                self.refuse(f"{field}[{index}].channel", f"{asked.channel!r} is there twice")
            seen.add(asked.channel)
        return tuple(found)

    def _channel_option(self, path: str, option: message_pb.ChannelOption) -> AskedChannel:
        reachability = customer_pb.Reachability
        return AskedChannel(
            channel=self.channel(f"{path}.channel", option.channel),
            is_reachable=self.choice(f"{path}.reachability", reachability, _REACHABILITY, option.reachability, None),
            consent=self.choice(f"{path}.consent", customer_pb.ConsentState, _CONSENTS, option.consent, None),
            price_override_micros=self.money(f"{path}.price_override", option, "price_override"),
            content=self.content(f"{path}.content", option.content) if option.HasField("content") else None,
        )

    def message(self, field: str, message: message_pb.Message) -> AskedMessage:
        earliest = self.moment(f"{field}.earliest_time", message, "earliest_time")
        expire = self.moment(f"{field}.expire_time", message, "expire_time")
        start = max(earliest or self.now, self.now)
        if earliest is not None and earliest > self.now + _MAX_LIFETIME:
            self.refuse(
                f"{field}.earliest_time", f"is more than {_MAX_LIFETIME.days} days ahead; ask nearer to the time"
            )
        elif expire is not None and earliest is not None and expire <= earliest:
            self.refuse(f"{field}.expire_time", "is not after earliest_time; nothing could ever be sent")
        elif expire is not None and expire > start + _MAX_LIFETIME:
            self.refuse(f"{field}.expire_time", f"is more than {_MAX_LIFETIME.days} days ahead; ask nearer to the time")
        half_life = self.duration(f"{field}.relevance_half_life", message, "relevance_half_life", _MAX_HALF_LIFE)
        category = self.choice(
            f"{field}.category", message_pb.MessageCategory, _CATEGORIES, message.category, "marketing"
        )
        return AskedMessage(
            campaign=self.text(f"{field}.campaign", message.campaign, 128, is_required=True),
            kind=self.text(f"{field}.kind", message.kind, 64, is_required=True),
            category=category,
            order_margin_micros=self.money(f"{field}.order_margin", message, "order_margin", is_required=True) or 0,
            content=self.content(f"{field}.content", message.content),
            topic=self.text(f"{field}.topic", message.topic, 128),
            offer=self.text(f"{field}.offer", message.offer, 128),
            journey_stage=self.text(f"{field}.journey_stage", message.journey_stage, 64),
            relevance_half_life_seconds=half_life,
            earliest_time=earliest,
            expire_time=expire,
            priority=self.whole(f"{field}.priority", message.priority, 0, 100),
        )

    def constraints(self, field: str, constraints: message_pb.Constraints) -> Constraints:
        for name in ("allowed_channels", "denied_channels"):
            for index, key in enumerate(getattr(constraints, name)):
                self.channel(f"{field}.{name}[{index}]", key)
        steps = self.whole(f"{field}.max_steps", constraints.max_steps, 0, 5)
        free_first = self.choice(f"{field}.free_first", message_pb.FreeFirst, _FREE_FIRST, constraints.free_first, None)
        return Constraints(
            allowed_channels=tuple(constraints.allowed_channels),
            denied_channels=tuple(constraints.denied_channels),
            max_cost_micros=self.money(f"{field}.max_cost", constraints, "max_cost"),
            free_first=free_first,
            max_steps=steps or None,
        )

    def is_full(self, field: str, view: int) -> bool:
        return self.choice(field, decision_pb.DecisionView, _VIEWS, view, False)


def show_time(observe: Observe, owner: Proto, name: str) -> None:
    """Let a clock that moves by requests see a time of one; a time that parsing will refuse is left out."""
    if owner.HasField(name):
        seconds = getattr(owner, name).seconds
        if _EARLIEST_TIME.timestamp() <= seconds <= _LATEST_TIME.timestamp():
            observe(datetime.fromtimestamp(seconds, UTC))


def is_zone(name: str) -> bool:
    """Tell whether there is an IANA zone of that name."""
    try:
        zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _enum_name(enum: NamedEnum, value: int) -> str:
    try:
        return str(enum.Name(value))
    except ValueError:
        return str(value)


def parse_choose(request: choice_pb.ChooseChannelRequest, rules: Rules, now: datetime) -> tuple[ChooseRequest, bool]:
    """Return the checked request, and whether the FULL view is asked for.

    Raises
    ------
    InvalidInput: with every field that is refused.
    """
    check = Checker(rules, now)
    is_full = check.is_full("view", request.view)
    comparable = choice_pb.ChooseChannelRequest()
    comparable.CopyFrom(request)
    comparable.ClearField("view")
    parsed = ChooseRequest(
        request_id=check.text("request_id", request.request_id, 128, is_required=True),
        body=comparable.SerializeToString(deterministic=True),
        person=check.person("customer", request.customer),
        message=check.message("message", request.message),
        channels=check.channels("channels", request.channels, 1),
        features=check.features("features", request.features),
        constraints=check.constraints("constraints", request.constraints),
        mode=check.choice("mode", decision_pb.DecisionMode, _MODES, request.mode, Mode.LIVE),
    )
    check.finish()
    return parsed, is_full


def parse_advance(request: choice_pb.AdvanceCascadeRequest, rules: Rules, now: datetime) -> tuple[AdvanceRequest, bool]:
    """Return the checked request, and whether the FULL view is asked for; raises InvalidInput."""
    check = Checker(rules, now)
    is_full = check.is_full("view", request.view)
    parsed = AdvanceRequest(
        decision_id=check.text("decision_id", request.decision_id, 128, is_required=True),
        completed_step=check.whole("completed_step", request.completed_step, 1, 5),
        channels=check.channels("channels", request.channels, 0),
    )
    check.finish()
    return parsed, is_full


def parse_outcome(outcome: outcome_pb.Outcome, rules: Rules, now: datetime) -> ReportedOutcome:
    """Return the checked outcome; raises InvalidInput with every field that is refused."""
    check = Checker(rules, now)
    types = {number: name for name, number in outcome_pb.OutcomeType.items() if number}
    kind = check.choice("type", outcome_pb.OutcomeType, types, outcome.type, "").removeprefix("OUTCOME_TYPE_").lower()
    occur = check.moment("occur_time", outcome, "occur_time", is_required=True)
    if occur is not None and occur > now + timedelta(days=1):
        check.refuse(
            "occur_time", "is more than a day ahead of the server's clock; check the reporter's clock and unit"
        )
    has_person = outcome.HasField("customer")
    if not outcome.decision_id and not has_person:
        check.refuse("decision_id", "is required unless customer is given")
    if outcome.HasField("value") and kind not in _PURCHASES:
        check.refuse("value", "belongs to ORDER, STORE_PURCHASE and RETURN alone")
    if outcome.HasField("revenue") and kind not in _PURCHASES:
        check.refuse("revenue", "belongs to ORDER, STORE_PURCHASE and RETURN alone")
    if outcome.HasField("actual_cost") and kind not in ("sent", "undelivered"):
        check.refuse("actual_cost", "belongs to SENT and UNDELIVERED alone")
    if kind == "survey" and not (outcome.survey.csat or outcome.survey.HasField("nps")):
        check.refuse("survey", "csat, nps or both are required for SURVEY")
    nps = outcome.survey.nps if outcome.survey.HasField("nps") else None
    parsed = ReportedOutcome(
        event_id=check.text("event_id", outcome.event_id, 128, is_required=True),
        body=outcome.SerializeToString(deterministic=True),
        decision_id=check.text("decision_id", outcome.decision_id, 128),
        step=check.whole("step", outcome.step, 0, 5),
        type=kind,
        occur_time=occur or now,
        value_micros=check.money("value", outcome, "value"),
        cost_micros=check.money("actual_cost", outcome, "actual_cost"),
        revenue_micros=check.money("revenue", outcome, "revenue"),
        machine_generated=outcome.machine_generated,
        csat=check.whole("survey.csat", outcome.survey.csat, 0, 5) or None,
        nps=None if nps is None else check.whole("survey.nps", nps, 0, 10),
        person=check.person("customer", outcome.customer) if has_person else None,
    )
    check.finish()
    return parsed


def parse_customer(customer: customer_pb.Customer, rules: Rules, now: datetime) -> UpsertRequest:
    """Return the checked customer; raises InvalidInput with every field that is refused."""
    check = Checker(rules, now)
    person = check.person("customer", customer.customer)
    consents: dict[str, ConsentRecord] = {}
    for index, said in enumerate(customer.consents):
        path = f"consents[{index}]"
        channel = check.channel(f"{path}.channel", said.channel)
        if channel in consents:
            check.refuse(f"{path}.channel", f"{channel!r} is there twice")
        is_granted = said.state == customer_pb.CONSENT_STATE_GRANTED
        if not is_granted and said.state != customer_pb.CONSENT_STATE_DENIED:
            check.refuse(f"{path}.state", "is required: CONSENT_STATE_GRANTED or CONSENT_STATE_DENIED")
        moment = check.moment(f"{path}.consent_time", said, "consent_time") or now
        if moment > now + timedelta(days=1):
            check.refuse(f"{path}.consent_time", "is more than a day ahead of the server's clock; check clock and unit")
        consents[channel] = ConsentRecord(
            state="granted" if is_granted else "denied",
            evidence=check.text(f"{path}.evidence", said.evidence, 512, is_required=is_granted),
            consent_time=min(moment, now),  # what was said by a fast clock must not outlive a withdrawal
        )
    reachability: dict[str, bool] = {}
    for index, reach in enumerate(customer.reachability):
        path = f"reachability[{index}]"
        channel = check.channel(f"{path}.channel", reach.channel)
        if channel in reachability:
            check.refuse(f"{path}.channel", f"{channel!r} is there twice")
        state = _REACHABILITY.get(reach.state)
        if state is None:
            check.refuse(f"{path}.state", "is required: REACHABILITY_REACHABLE or REACHABILITY_UNREACHABLE")
        reachability[channel] = bool(state)
    check.finish()
    profile = Profile(
        time_zone=person.time_zone,
        locale=person.locale,
        country=person.country,
        features=person.features,
        consents=consents,
        reachability={key: "reachable" if reaches else "unreachable" for key, reaches in reachability.items()},
    )
    return UpsertRequest(person=person, profile=profile)


def parse_person(field: str, ref: customer_pb.CustomerRef, rules: Rules, now: datetime) -> Person:
    """Return the checked reference to a customer; raises InvalidInput."""
    check = Checker(rules, now)
    person = check.person(field, ref)
    check.finish()
    return person
