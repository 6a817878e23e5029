"""Business rules as versioned data: channels, dated prices, quiet hours, caps, exploration, holdout, harm, experiments, goals.

One TOML file holds them all. `parse_rules` turns its text into values or refuses it with every mistake by its key.
Money in the file is written as a decimal in the file's currency ("5.30") and kept as an integer of micros.
"""

import hashlib
import re
import tomllib
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date, time, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from models.errors import RulesInvalid, Violation

Category = Literal["marketing", "service", "transactional"]
Consent = Literal["granted", "denied"]
FreeFirstMode = Literal["by_value", "strict"]
PolicyName = Literal[
    "greedy_floor", "inverse_gap", "thompson", "epsilon_greedy", "greedy", "rule_cascade", "most_engaged"
]

BudgetPeriod = Literal["day", "week", "month", "total"]
Metric = Literal[
    "net_value",
    "margin",
    "revenue",
    "orders",
    "conversion",
    "average_order",
    "purchase_frequency",
    "spend",
    "paid_messages",
    "messages",
    "cost_per_order",
    "unsubscribe_rate",
    "complaint_rate",
    "retention",
    "churn",
    "lifetime_value",
    "match_rate",
    "store_purchases",
    "store_conversion",
    "multi_channel_share",
    "cross_channel_conversion",
    "returns",
    "csat",
    "nps",
]
"""What an experiment may be judged by; training.experiments.kpis defines each."""

_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
EVERY = "*"
_EVERY = EVERY
_WEIGHT_SLACK = 1e-6
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
Key = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
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


class PriceBook(tuple[Price, ...]):
    """The lines of the price book, with those of each scope at hand: a book of many countries has thousands."""

    @classmethod
    def of(cls, prices: tuple[Price, ...]) -> "PriceBook":
        """Return the lines as such a book; themselves where they are one."""
        return prices if isinstance(prices, PriceBook) else cls(prices)

    def find(self, channel: str, country: str, category: Category, day: date) -> Price | None:
        """Return the line that holds: the most specific scope valid that day, of its latest date.

        A country counts as more specific than a category.
        """
        for scope in ((country, category), (country, EVERY), (EVERY, category), (EVERY, EVERY)):
            lines = self._by_scope.get((channel, *scope), ())
            known = bisect_right(lines, day, key=lambda line: line.start_date)
            if known:
                return lines[known - 1]
        return None

    @cached_property
    def _by_scope(self) -> dict[tuple[str, str, str], list[Price]]:
        found: dict[tuple[str, str, str], list[Price]] = {}
        for line in sorted(self, key=lambda line: line.start_date):
            found.setdefault((line.channel, line.country, line.category), []).append(line)
        return found


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
class Guardrail:
    """A metric that a variant must not make worse than the control by more than a margin."""

    __pydantic_config__ = _STRICT

    metric: Metric
    margin: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
    """How much worse may be tolerated, as a share of the control's value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way of deciding. Each table that it has goes over the table of that name in the file, key by key."""

    __pydantic_config__ = _STRICT

    name: Key
    weight: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    """P(variant | exposed to the experiment)."""
    bundle: str = ""
    """What serves: a bundle's directory, or models:/NAME@ALIAS; empty: what serves everybody."""
    policy: PolicyRules | None = None
    cascade: CascadeRules | None = None
    timing: Timing | None = None
    harm: Harm | None = None

    @property
    def tables(self) -> dict[str, object]:
        """What it decides by in place of the file's, by key."""
        return {name: getattr(self, name) for name in VARIANT_TABLES if getattr(self, name) is not None}


VARIANT_TABLES = ("policy", "cascade", "timing", "harm")
"""Tables of the rules file that a variant may change; what protects customers and money is the same for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Two or more ways of deciding, drawn for each customer, and what says which is better.

    Experiments of one layer share no customer; those of different layers are drawn independently of each other.
    """

    __pydantic_config__ = _STRICT

    name: Key
    variants: Annotated[tuple[Variant, ...], Field(min_length=2, max_length=8)]
    """The first is the control."""
    start_time: AwareDatetime
    end_time: AwareDatetime
    layer: Key = "main"
    layer_range: tuple[Share, Share] = (0.0, 1.0)
    """The part of the layer's customers, from and to, that the experiment has for itself."""
    exposure: Share = 1.0
    """The share of them that take part; may be changed while it runs, by UpdateExperiment."""
    salt: str = ""
    """What customers are drawn with; empty: the name."""
    categories: Annotated[tuple[Category, ...], Field(min_length=1)] = ("marketing",)
    kinds: tuple[str, ...] = ()
    """Kinds of message that it is about; empty: all. So with the three that follow."""
    campaigns: tuple[str, ...] = ()
    journey_stages: tuple[str, ...] = ()
    countries: tuple[Country, ...] = ()
    window_days: Annotated[float, Field(gt=0, le=365, allow_inf_nan=False)] = 14
    """How long after their first exposure what a customer does counts."""
    success: Annotated[tuple[Metric, ...], Field(min_length=1, max_length=8)] = ("net_value",)
    guardrails: tuple[Guardrail, ...] = (Guardrail(metric="unsubscribe_rate", margin=0.25),)
    alpha: Annotated[float, Field(gt=0, lt=0.5, allow_inf_nan=False)] = 0.05
    power: Annotated[float, Field(gt=0.5, lt=1, allow_inf_nan=False)] = 0.8
    minimum_detectable_effect: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.1
    """The lift of the first success metric that is to be found with that power."""
    stop_on_harm: bool = False
    """Whether `training monitor` stops it where a guardrail is shown to be violated, or customers are not drawn as they should be."""

    @property
    def control(self) -> Variant:
        return self.variants[0]

    @property
    def window(self) -> timedelta:
        return timedelta(days=self.window_days)

    def variant(self, name: str) -> Variant | None:
        """Return the variant of that name."""
        return next((variant for variant in self.variants if variant.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A figure of all customers that is to change by a share until a day."""

    __pydantic_config__ = _STRICT

    name: Key
    metric: Metric
    change: Annotated[float, Field(ge=-1, le=100, allow_inf_nan=False)]
    """By what share of the baseline it is to have changed on the last day: 0.3 for 30 % more."""
    start_date: BudgetDay
    end_date: BudgetDay
    baseline: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The figure to start from; none: that of as many days before start_date as a checkpoint has."""
    checkpoint_days: Annotated[int, Field(ge=1, le=366)] = 30
    """How many days lie between two looks, each at the days since the one before."""


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
    prices: Annotated[tuple[Price, ...], AfterValidator(PriceBook)] = ()
    quiet_hours: QuietHours | None = None
    caps: tuple[Cap, ...] = ()
    topic_cap: TopicCap | None = None
    budgets: tuple[Budget, ...] = ()
    policy: PolicyRules = field(default_factory=PolicyRules)
    holdout: Holdout = field(default_factory=Holdout)
    harm: Harm = field(default_factory=Harm)
    timing: Timing = field(default_factory=Timing)
    attribution_days: Annotated[float, Field(gt=0, le=365)] = 30
    experiments: tuple[Experiment, ...] = ()
    goals: tuple[Goal, ...] = ()
    digest: str = ""

    @property
    def name(self) -> str:
        """Version with digest, as decisions record it."""
        return f"{self.version}+{self.digest[:12]}"

    def experiment(self, name: str) -> Experiment | None:
        """Return the experiment of that name."""
        return next((experiment for experiment in self.experiments if experiment.name == name), None)

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
        rules = _ADAPTER.validate_python(_with_whole_tables(document))
    except ValidationError as error:
        raise RulesInvalid([_violation(e, document) for e in error.errors()], source) from error
    violations = _contradictions(rules) + _experiment_contradictions(rules)
    if violations:
        raise RulesInvalid(violations, source)
    return rules


def _with_whole_tables(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with each table of a variant laid over the file's own, so that it is checked as a whole."""
    found = document.get("experiments")
    if not isinstance(found, list):
        return document

    def whole(variant: Any) -> Any:
        if not isinstance(variant, dict):
            return variant
        tables = {}
        for name in VARIANT_TABLES:
            below, above = document.get(name, {}), variant.get(name)
            if isinstance(below, dict) and isinstance(above, dict):
                tables[name] = below | above
        return variant | tables

    def with_variants(experiment: Any) -> Any:
        variants = experiment.get("variants") if isinstance(experiment, dict) else None
        return experiment | {"variants": [whole(v) for v in variants]} if isinstance(variants, list) else experiment

    return document | {"experiments": [with_variants(experiment) for experiment in found]}


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


def _experiment_contradictions(rules: Rules) -> list[Violation]:
    """Check experiments and goals by themselves, against the rest of the file, and experiments against each other."""
    found: list[Violation] = []

    def refuse(key: str, description: str) -> None:
        found.append(Violation(field=key, description=description))

    below = {(v.field, v.description) for v in _contradictions(rules)}
    for place, experiment in enumerate(rules.experiments):
        key = f"experiments[{place}]"
        if experiment.end_time <= experiment.start_time:
            refuse(f"{key}.end_time", "is not after start_time")
        if experiment.layer_range[0] >= experiment.layer_range[1]:
            refuse(f"{key}.layer_range", "begins where it ends or later; write [from, to], such as [0.0, 0.5]")
        total = sum(variant.weight for variant in experiment.variants)
        if abs(total - 1) > _WEIGHT_SLACK:
            refuse(f"{key}.variants", f"have weights that sum to {total:g}; make it 1")
        for name, count in Counter(variant.name for variant in experiment.variants).items():
            if count > 1:
                refuse(f"{key}.variants", f"{count} variants are named {name!r}; give each a name of its own")
        metrics = [*experiment.success, *(guardrail.metric for guardrail in experiment.guardrails)]
        for name, count in Counter(metrics).items():
            if count > 1:
                refuse(f"{key}.guardrails", f"{name} is named twice among success and guardrails; name it once")
        for number, variant in enumerate(experiment.variants):
            changed = replace(rules, experiments=(), **variant.tables)  # type: ignore[arg-type]  # the fields of these names
            for violation in _contradictions(changed):
                if (violation.field, violation.description) not in below:
                    refuse(f"{key}.variants[{number}].{violation.field}", violation.description)
    for name, count in Counter(experiment.name for experiment in rules.experiments).items():
        if count > 1:
            refuse("experiments", f"{count} experiments are named {name!r}; give each a name of its own")
    for (first, one), (second, other) in combinations(enumerate(rules.experiments), 2):
        if one.end_time <= other.start_time or other.end_time <= one.start_time:
            continue
        if one.layer == other.layer:
            if max(one.layer_range[0], other.layer_range[0]) < min(one.layer_range[1], other.layer_range[1]):
                problem = f"overlaps that of experiments[{first}], {one.name}, in the same layer at the same time; give each a part of its own, or let one end before the other"
                refuse(f"experiments[{second}].layer_range", problem)
            continue
        shared = _changed_tables(one) & _changed_tables(other)
        if shared:
            problem = f"and {one.name} of another layer, experiments[{first}], both change {', '.join(sorted(shared))} at the same time; put them into one layer"
            refuse(f"experiments[{second}]", problem)
    for place, goal in enumerate(rules.goals):
        if goal.end_date <= goal.start_date:
            refuse(f"goals[{place}].end_date", "is not after start_date")
        if goal.change == 0:
            refuse(f"goals[{place}].change", "is zero; write by what share it is to change, such as 0.3")
    for name, count in Counter(goal.name for goal in rules.goals).items():
        if count > 1:
            refuse("goals", f"{count} goals are named {name!r}; give each a name of its own")
    return found


def _changed_tables(experiment: Experiment) -> set[str]:
    bundles = {"bundle" for variant in experiment.variants if variant.bundle}
    return bundles | {name for variant in experiment.variants for name in variant.tables}
