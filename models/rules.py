"""Business rules as versioned data: channels, dated prices, quiet hours, caps, exploration, holdout, harm.

One TOML file holds them all. `parse_rules` turns its text into values or refuses it with every mistake by its key.
Money in the file is written as a decimal in the file's currency ("5.30") and kept as an integer of micros.
"""

import hashlib
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from models.errors import RulesInvalid, Violation

Category = Literal["marketing", "service", "transactional"]
Consent = Literal["granted", "denied"]
FreeFirstMode = Literal["by_value", "strict"]
PolicyName = Literal[
    "greedy_floor", "inverse_gap", "thompson", "epsilon_greedy", "greedy", "rule_cascade", "most_engaged"
]

BudgetPeriod = Literal["day", "week", "month", "total"]

_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
EVERY = "*"
_EVERY = EVERY
_MOST_MICROS = 10**15
"""A thousand million units of the currency; all money up to it is exact as a float."""


def _to_micros(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('write money as a decimal in quotes, such as "5.30"')
    try:
        money = Decimal(value)
        micros = money * 1_000_000
    except ArithmeticError as error:
        raise ValueError('write money as a decimal in quotes, such as "5.30"') from error
    if micros.is_nan():
        raise ValueError('write money as a decimal in quotes, such as "5.30"')
    if micros < 0:
        raise ValueError("must not be negative")
    if micros > _MOST_MICROS:
        raise ValueError("must not be above 1000000000")
    if Decimal(int(micros)).scaleb(-6) != money:
        raise ValueError("money has at most six decimals")
    return int(micros)


def _to_clock(value: object) -> time:
    if isinstance(value, time):
        return value
    if isinstance(value, str) and re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        return time.fromisoformat(value)
    raise ValueError('write a time of day as "HH:MM", from "00:00" to "23:59"')


Micros = Annotated[int, BeforeValidator(_to_micros)]
Clock = Annotated[time, BeforeValidator(_to_clock)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Hours = Annotated[float, Field(gt=0, le=24 * 366, allow_inf_nan=False)]
Minutes = Annotated[float, Field(ge=0, le=60 * 24 * 30, allow_inf_nan=False)]
ChannelKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
BudgetDay = Annotated[date, Field(ge=date(2000, 1, 1), le=date(2999, 12, 31))]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietHours:
    """Wall-clock hours [start, end) in the customer's zone in which nothing is sent; may run over midnight."""

    __pydantic_config__ = _STRICT

    start: Clock
    end: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRules:
    """One channel of the registry."""

    __pydantic_config__ = _STRICT

    paid: bool
    max_characters: Annotated[int, Field(gt=0)] | None = None
    """The longest text it carries; none: any length."""
    images: bool = False
    """Whether it can show a picture."""
    consent_default: Consent = "denied"
    """What holds where neither the request nor the profile says anything of consent."""
    wait_minutes: Minutes = 240
    """How long the rule cascade waits for a response before its next step."""
    delivery_ttl_minutes: Annotated[Minutes, Field(gt=0)] | None = None
    """How long after a send the next step waits for DELIVERED; none: until UNDELIVERED is reported."""
    slip_minutes: Minutes = 15
    """How long after send_time a send is still as decided."""
    quiet_hours: QuietHours | Literal["default", "none"] = "default"
    """Hours of its own; "none" for channels that do not disturb, such as in-app."""
    unsubscribe_rate: Share = 0.001
    """P(unsubscribe | send), used until the bundle knows better."""

    @property
    def wait(self) -> timedelta:
        return timedelta(minutes=self.wait_minutes)

    @property
    def delivery_ttl(self) -> timedelta | None:
        return None if self.delivery_ttl_minutes is None else timedelta(minutes=self.delivery_ttl_minutes)

    @property
    def slip(self) -> timedelta:
        return timedelta(minutes=self.slip_minutes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One line of the price book: valid from its date until a later line of equal scope."""

    __pydantic_config__ = _STRICT

    channel: str
    start_date: date
    price: Micros
    per: Literal["message", "segment"] = "message"
    country: Country | Literal["*"] = "*"
    category: Category | Literal["*"] = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """At most `limit` marketing messages in any window of `window_hours`, through one channel or over all."""

    __pydantic_config__ = _STRICT

    name: Annotated[str, Field(min_length=1)]
    limit: Annotated[int, Field(ge=0)]
    window_hours: Hours
    channel: str = _EVERY
    last_for_priority: Annotated[int, Field(ge=0, le=100)] = 0
    """The last place of the cap is kept for messages of at least this priority; 0 keeps it for none."""

    @property
    def window(self) -> timedelta:
        return timedelta(hours=self.window_hours)

    def counts(self, channel: str) -> bool:
        """Tell whether messages through that channel count."""
        return self.channel in (_EVERY, channel)

    def limit_for(self, priority: int) -> int:
        """Return how many messages there may be in a window for one of that priority to be among them."""
        return self.limit - 1 if priority < self.last_for_priority else self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicCap:
    """At most `limit` messages of one topic in any window of `window_hours`; steps of one cascade count once."""

    __pydantic_config__ = _STRICT

    limit: Annotated[int, Field(ge=1)] = 1
    window_hours: Hours = 72

    @property
    def window(self) -> timedelta:
        return timedelta(hours=self.window_hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most `amount` in each period for sends through one channel or all, of one campaign or all, whatever their category."""

    __pydantic_config__ = _STRICT

    name: Annotated[str, Field(min_length=1, max_length=64)]
    amount: Micros
    period: BudgetPeriod
    """Calendar days, weeks from Monday and months in the rules' zone, or one total."""
    channel: str = _EVERY
    campaign: Annotated[str, Field(min_length=1, max_length=128)] = _EVERY
    start_date: BudgetDay | None = None
    """The first day of a total."""
    end_date: BudgetDay | None = None
    """The last day of a total; outside its days nothing may be spent."""

    def counts(self, channel: str, campaign: str) -> bool:
        """Tell whether sends of that campaign through that channel count."""
        return self.channel in (_EVERY, channel) and self.campaign in (_EVERY, campaign)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRules:
    """Which policy chooses, how much it explores, and what a paid channel must be worth to be considered at all."""

    __pydantic_config__ = _STRICT

    name: PolicyName = "greedy_floor"
    """The policy of models.policies that chooses by the bundle's values."""
    exploration_budget: Micros | None = None
    """The most that exploring is expected to cost in a thousand decisions; none: no limit in money. inverse_gap needs it."""
    exploration_floor: Annotated[Share, Field(gt=0)] = 0.01
    """The smallest propensity of an eligible action under greedy_floor and thompson, within exploration_limit and exploration_budget."""
    exploration_limit: Annotated[Share, Field(gt=0)] = 0.1
    """The most probability that all floors take together; what epsilon_greedy explores with."""
    paid_optimism: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] = 3.0
    """A paid send is not eligible where its price is above this many times its expected incremental value."""
    paid_caution: Share = 0.05
    """A send with a price is chosen over a free one only where its value with what may follow is greater even after taking this share off."""
    free_first: FreeFirstMode = "by_value"
    correction: bool = True
    """Whether what the bundle says is corrected by what has been seen since it was trained (models.correction)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """Customers who get no marketing at all, so that the whole programme can be measured."""

    __pydantic_config__ = _STRICT

    share: Share = 0.0
    salt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What an unwanted contact costs."""

    __pydantic_config__ = _STRICT

    unsubscribe: Micros = 0
    """Money lost with each customer who unsubscribes from a channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeRules:
    """Escalation: how many steps, in which order where no bundle serves, and what stops it."""

    __pydantic_config__ = _STRICT

    order: Annotated[tuple[str, ...], Field(min_length=1)]
    """The rule cascade: channels in the order in which it tries them, free ones first."""
    max_steps: Annotated[int, Field(ge=1, le=5)] = 3
    stop_on_click: bool = True
    least_wait_minutes: Minutes = 60
    """The shortest time between two steps; where a bundle serves, it learns how long to wait beyond that."""

    @property
    def least_wait(self) -> timedelta:
        return timedelta(minutes=self.least_wait_minutes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Which send slots are looked at."""

    __pydantic_config__ = _STRICT

    horizon_hours: Hours = 24
    """Slots lie at most this long after the earliest time."""
    slot_hours: Annotated[Hours, Field(ge=0.25)] = 3
    """Distance between slots."""
    lifetime_hours: Hours = 48
    """How long a message lives that has no expire_time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The whole rules file. `version` is the file's own; `digest` is of its bytes, so that no two files share a name."""

    __pydantic_config__ = _STRICT

    version: Annotated[str, Field(min_length=1, max_length=64)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    country: Country
    time_zone: Annotated[str, Field(min_length=1)]
    channels: Annotated[dict[ChannelKey, ChannelRules], Field(min_length=1)]
    cascade: CascadeRules
    prices: tuple[Price, ...] = ()
    quiet_hours: QuietHours | None = None
    caps: tuple[Cap, ...] = ()
    topic_cap: TopicCap | None = None
    budgets: tuple[Budget, ...] = ()
    policy: PolicyRules = field(default_factory=PolicyRules)
    holdout: Holdout = field(default_factory=Holdout)
    harm: Harm = field(default_factory=Harm)
    timing: Timing = field(default_factory=Timing)
    attribution_days: Annotated[float, Field(gt=0, le=365)] = 30
    digest: str = ""

    @property
    def name(self) -> str:
        """Version with digest, as decisions record it."""
        return f"{self.version}+{self.digest[:12]}"

    def quiet_hours_of(self, channel: str) -> QuietHours | None:
        """Return the quiet hours of a channel, none where it has none."""
        own = self.channels[channel].quiet_hours
        if own == "default":
            return self.quiet_hours
        return None if own == "none" else own


_ADAPTER: TypeAdapter[Rules] = TypeAdapter(Rules)


def parse_rules(text: str, source: str = "rules file") -> Rules:
    """Parse and check the text of a rules file.

    Raises
    ------
    RulesInvalid: with every mistake, by line where it is not TOML and by key where it is.
    """
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesInvalid([Violation(field="", description=f"not TOML: {error}")], source) from error
    if "digest" in document:
        raise RulesInvalid([Violation(field="digest", description="is worked out from the file; remove it")], source)
    document["digest"] = hashlib.sha256(text.encode()).hexdigest()
    try:
        rules = _ADAPTER.validate_python(document)
    except ValidationError as error:
        raise RulesInvalid([_violation(e, document) for e in error.errors()], source) from error
    violations = _contradictions(rules)
    if violations:
        raise RulesInvalid(violations, source)
    return rules


def read_rules(path: Path) -> Rules:
    """Read a rules file.

    Raises
    ------
    RulesInvalid: with every mistake in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RulesInvalid([Violation(field="", description=f"cannot be read: {error}")], str(path)) from error
    return parse_rules(text, str(path))


def _violation(error: Any, document: Any) -> Violation:
    """Name the key of the document that an error is about; what else its location holds are names of types."""
    path, place = "", document
    for part in error["loc"]:
        if isinstance(place, list) and isinstance(part, int):
            path, place = f"{path}[{part}]", place[part]
        elif isinstance(place, dict) and (part in place or (error["type"] == "missing" and part == error["loc"][-1])):
            path, place = f"{path}.{part}" if path else part, place.get(part)
    message = (
        "unknown key; remove it or mend its spelling"
        if error["type"] == "unexpected_keyword_argument"
        else error["msg"]
    )
    return Violation(field=path, description=message.removeprefix("Value error, "))


def _contradictions(rules: Rules) -> list[Violation]:
    """Check what one key says against the others."""
    found: list[Violation] = []

    def refuse(key: str, description: str) -> None:
        found.append(Violation(field=key, description=description))

    def check_channel(key: str, channel: str) -> None:
        if channel not in rules.channels:
            refuse(key, f"unknown channel {channel!r}; the registry has {', '.join(sorted(rules.channels))}")

    def check_quiet(key: str, quiet: object) -> None:
        if isinstance(quiet, QuietHours) and quiet.start == quiet.end:
            refuse(key, "start and end are the same; leave the table out where there are no quiet hours")

    try:
        ZoneInfo(rules.time_zone)
    except (OSError, ValueError, ZoneInfoNotFoundError):
        refuse("time_zone", f"unknown IANA zone {rules.time_zone!r}; write one such as Europe/Moscow")
    check_quiet("quiet_hours", rules.quiet_hours)
    for key, channel in rules.channels.items():
        if key == "none":
            refuse("channels.none", "is the name of no send; give the channel another")
        check_quiet(f"channels.{key}.quiet_hours", channel.quiet_hours)
        priced = any(price.channel == key for price in rules.prices)
        if channel.paid and not priced:
            refuse(f"channels.{key}.paid", "is true but the price book has no price of it; add a [[prices]] entry")
        if not channel.paid and priced:
            refuse(f"channels.{key}.paid", "is false but the price book has a price of it; remove one of the two")
    for index, price in enumerate(rules.prices):
        check_channel(f"prices[{index}].channel", price.channel)
    scopes = Counter((p.channel, p.country, p.category, p.start_date) for p in rules.prices)
    for index, price in enumerate(rules.prices):
        if scopes[price.channel, price.country, price.category, price.start_date] > 1:
            refuse(f"prices[{index}]", "another entry has the same channel, country, category and start_date")
    for index, cap in enumerate(rules.caps):
        if cap.channel != _EVERY:
            check_channel(f"caps[{index}].channel", cap.channel)
        if cap.last_for_priority and cap.limit == 0:
            refuse(f"caps[{index}].last_for_priority", "keeps the last place of a cap whose limit is 0; remove it")
    for name, count in Counter(cap.name for cap in rules.caps).items():
        if count > 1:
            refuse("caps", f"{count} caps are named {name!r}; give each a name of its own")
    for index, budget in enumerate(rules.budgets):
        if budget.channel != _EVERY:
            check_channel(f"budgets[{index}].channel", budget.channel)
            known = rules.channels.get(budget.channel)
            if known is not None and not known.paid:
                refuse(f"budgets[{index}].channel", f"{budget.channel} is free; name a paid channel")
        if budget.amount == 0:
            refuse(
                f"budgets[{index}].amount", "is zero; to spend nothing pause the channel or leave it out of requests"
            )
        for key, day in (("start_date", budget.start_date), ("end_date", budget.end_date)):
            if budget.period == "total" and day is None:
                refuse(f"budgets[{index}].{key}", 'is missing; period = "total" has a first and a last day')
            if budget.period != "total" and day is not None:
                refuse(f"budgets[{index}].{key}", f'belongs to period = "total"; each {budget.period} has its own days')
        if budget.start_date is not None and budget.end_date is not None and budget.end_date < budget.start_date:
            refuse(f"budgets[{index}].end_date", "is before start_date")
    for name, count in Counter(budget.name for budget in rules.budgets).items():
        if count > 1:
            refuse("budgets", f"{count} budgets are named {name!r}; give each a name of its own")
    for index, channel_key in enumerate(rules.cascade.order):
        check_channel(f"cascade.order[{index}]", channel_key)
    if len(set(rules.cascade.order)) < len(rules.cascade.order):
        refuse("cascade.order", "names a channel twice")
    paid = [rules.channels[key].paid for key in rules.cascade.order if key in rules.channels]
    if paid != sorted(paid):
        refuse("cascade.order", "has a paid channel before a free one; put the free ones first")
    if rules.policy.exploration_floor > rules.policy.exploration_limit:
        refuse("policy.exploration_floor", "is above policy.exploration_limit")
    if rules.policy.exploration_budget == 0:
        problem = 'is zero; write what a thousand decisions may cost, such as "500", or name the policy "greedy"'
        refuse("policy.exploration_budget", problem)
    if rules.policy.name == "inverse_gap" and rules.policy.exploration_budget is None:
        problem = 'is missing; policy.name = "inverse_gap" explores by it: write what a thousand decisions may cost, such as "500"'
        refuse("policy.exploration_budget", problem)
    if rules.holdout.share > 0 and not rules.holdout.salt:
        refuse("holdout.salt", "is empty; give the holdout a salt, and keep it as long as the holdout lasts")
    return found
