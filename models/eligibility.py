"""Which channels may be used, when, and why the others may not.

A channel is eligible where at least one send slot passes every rule: consent, reachability, pause, content, price limit, quiet
hours in the customer's zone, rolling-window caps, and the time between `not_before` and `expire_time`. Every channel that is not
eligible is suppressed with each reason that holds, and with the moment from which it may be eligible where there is one.

Caps are true rolling windows: no interval of the window's length may hold more messages than the limit. A message is counted at
the edge of its slip window nearest to the other, so the cap holds wherever in its window each one is really sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from models import local_time
from models.budget import BudgetState
from models.context import ChannelOption, Constraints, Contact, Content, Context, Reason
from models.prices import option_price
from models.rules import Cap, Category, FreeFirstMode, QuietHours, Rules

_FINE_SLOTS = 4
_NAMED = 3
"""Decisions that the detail of a full cap names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """When a message may be sent: from `start`, and up to `end` it is still as decided."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EligibleChannel:
    """A channel that may be used, with its price and its send slots in order."""

    channel: str
    is_paid: bool
    price_micros: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressed:
    """A channel that may not be used, and why."""

    channel: str
    reason: Reason
    detail: str
    retry_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Eligibility:
    """All channels of a request, each either eligible or suppressed; `waiting` are paid ones suppressed only until free ones are tried."""

    eligible: tuple[EligibleChannel, ...]
    suppressed: tuple[Suppressed, ...]
    waiting: tuple[EligibleChannel, ...] = ()


@dataclass(frozen=True, slots=True)
class _Asked:
    """All that eligibility hangs on but caps: customers of a campaign have it in common where their channels and zones are the same."""

    options: tuple[ChannelOption, ...]
    constraints: Constraints
    category: Category
    content: Content
    decide_time: datetime
    start: datetime
    expire_time: datetime
    country: str
    time_zone: str
    tried: tuple[str, ...]
    paused: tuple[str, ...]
    budgets: tuple[BudgetState, ...]

    @classmethod
    def of(cls, context: Context) -> "_Asked":
        message, customer = context.message, context.customer
        return cls(
            context.options,
            context.constraints,
            message.category,
            message.content,
            context.decide_time,
            max(context.not_before, context.decide_time),
            message.expire_time,
            customer.country,
            customer.time_zone,
            context.tried,
            context.paused,
            context.budgets,
        )


class _These:
    """Rules that are the same only as the same object: to compare them by what they say would take longer than to do without."""

    __slots__ = ("rules",)

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _These) and other.rules is self.rules

    def __hash__(self) -> int:
        return id(self.rules)


def find_eligible(context: Context, rules: Rules) -> Eligibility:
    """Sort the channels of a request into eligible and suppressed ones."""
    asked = _Asked.of(context)
    caps = [full for full in _full_caps(context, rules, asked.start) if full.full_until > asked.start]
    return _sort_channels(asked, rules, caps) if caps else _sort_uncapped(asked, _These(rules))


@lru_cache(maxsize=64)
def _sort_uncapped(asked: _Asked, these: _These) -> Eligibility:
    return _sort_channels(asked, these.rules, [])


def _sort_channels(asked: _Asked, rules: Rules, caps: Sequence["_FullCap"]) -> Eligibility:
    eligible: list[EligibleChannel] = []
    suppressed: list[Suppressed] = []
    timing, day = rules.timing, asked.decide_time.date()
    grid = _Grid(asked.start, asked.expire_time, timing.horizon_hours, timing.slot_hours)
    times: dict[object, _Times] = {}
    for option in asked.options:
        content = option.content or asked.content
        price = option_price(rules, option, content, asked.country, asked.category, day)
        refusals = _standing_refusals(asked, rules, option, content, price)
        if not refusals:
            limits = _Limits.of(asked.time_zone, asked.category, asked.decide_time, rules, option.channel, caps)
            if limits.key not in times:
                times[limits.key] = _times(limits, grid)
            slots = times[limits.key].slots
            if slots:
                is_paid = rules.channels[option.channel].paid
                eligible.append(
                    EligibleChannel(channel=option.channel, is_paid=is_paid, price_micros=price or 0, slots=slots)
                )
            else:
                refusals = _time_refusals(asked, option.channel, times[limits.key])
        suppressed.extend(refusals)
    mode = asked.constraints.free_first or rules.policy.free_first
    return _free_first(mode, eligible, suppressed)


def free_first(context: Context, rules: Rules) -> FreeFirstMode:
    """Return whether paid channels wait for free ones: as the request says, else as the rules do."""
    return context.constraints.free_first or rules.policy.free_first


def _free_first(mode: FreeFirstMode, eligible: list[EligibleChannel], suppressed: list[Suppressed]) -> Eligibility:
    free = [c.channel for c in eligible if not c.is_paid]
    waiting = [c for c in eligible if c.is_paid] if mode == "strict" and free else []
    detail = f"free_first is strict and {', '.join(free)} is still untried"
    for channel in waiting:
        suppressed.append(Suppressed(channel=channel.channel, reason=Reason.FREE_CHANNEL_UNTRIED, detail=detail))
    return Eligibility(
        eligible=tuple(c for c in eligible if c not in waiting), suppressed=tuple(suppressed), waiting=tuple(waiting)
    )


def _standing_refusals(
    asked: _Asked, rules: Rules, option: ChannelOption, content: Content, price: int | None
) -> list[Suppressed]:
    """Return what speaks against a channel whatever the time; `price` is None where the price book has no line for it."""
    found: list[Suppressed] = []
    channel = rules.channels[option.channel]
    constraints = asked.constraints

    def refuse(reason: Reason, detail: str) -> None:
        found.append(Suppressed(channel=option.channel, reason=reason, detail=detail))

    if constraints.allowed_channels and option.channel not in constraints.allowed_channels:
        refuse(Reason.NOT_ALLOWED, "constraints.allowed_channels does not name it")
    if option.channel in constraints.denied_channels:
        refuse(Reason.NOT_ALLOWED, "constraints.denied_channels names it")
    if option.channel in asked.tried:
        refuse(Reason.ALREADY_TRIED, "an earlier step of this cascade used it")
    if option.channel in asked.paused:
        refuse(Reason.CHANNEL_PAUSED, "an operator paused it")
    if not option.has_consent:
        refuse(Reason.NO_CONSENT, "the customer has not consented to it")
    if not option.is_reachable:
        refuse(Reason.UNREACHABLE, "it does not reach the customer")
    if channel.max_characters is not None and content.size.characters > channel.max_characters:
        refuse(Reason.CONTENT_UNFIT, f"{content.size.characters} characters, it carries {channel.max_characters}")
    if content.has_image and not channel.images:
        refuse(Reason.CONTENT_UNFIT, "the message needs a picture, which it cannot show")
    if price is None:
        day = asked.decide_time.date()
        refuse(Reason.NO_PRICE, f"the price book has no {asked.category} price for {asked.country} on {day}")
    elif constraints.max_cost_micros is not None and price > constraints.max_cost_micros:
        refuse(
            Reason.MAX_COST_EXCEEDED, f"costs {price / 1e6:.2f}, max_cost is {constraints.max_cost_micros / 1e6:.2f}"
        )
    if price:
        found.extend(
            _exhausted(budget, option.channel, price)
            for budget in asked.budgets
            if budget.refuses(option.channel, price)
        )
    return found


def _exhausted(budget: BudgetState, channel: str, price: int) -> Suppressed:
    left, cap = budget.left_micros / 1e6, budget.cap_micros / 1e6
    return Suppressed(
        channel=channel,
        reason=Reason.BUDGET_EXHAUSTED,
        detail=f"costs {price / 1e6:.2f}, budget {budget.name} has {left:.2f} of {cap:.2f} left",
        retry_time=budget.retry_time if price <= budget.cap_micros else None,
    )


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where slots of a message are looked for."""

    start: datetime
    expire: datetime
    horizon_hours: float
    slot_hours: float

    def moments(self) -> list[datetime]:
        """Return the moments from which slots are looked for: the earliest one, then whole hours ever further apart up to the horizon.

        The first four steps are of the rules' length, those up to a day twice that, later ones four times: what is near is worth telling
        apart, what is far only has to be there for later steps of a cascade.
        """
        end = min(self.start + timedelta(hours=self.horizon_hours), self.expire)
        step = timedelta(hours=self.slot_hours)
        found = [self.start]
        moment = self.start.replace(minute=0, second=0, microsecond=0) + step
        while moment < end:
            found.append(moment)
            stretch = 1 if len(found) <= _FINE_SLOTS else 2 if moment - self.start < timedelta(days=1) else 4
            moment += stretch * step
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    """When limits allow a send: the slots; where there are none, the first allowed moment, and what was first in the way."""

    slots: tuple[Slot, ...]
    first: datetime | None = None
    reason: Reason | None = None
    detail: str = ""


def _times(limits: "_Limits", grid: "_Grid") -> _Times:
    """Look for slots from each moment of the grid; where no cap can be full, customers of a campaign in one zone have the same."""
    if limits.is_capped(grid.start):
        return _look_for_times(limits, grid)
    return _uncapped_times(limits.zone, limits.quiet, limits.slip, grid)


@lru_cache(maxsize=128)
def _uncapped_times(where: ZoneInfo, quiet: QuietHours | None, slip: timedelta, grid: "_Grid") -> _Times:
    return _look_for_times(_Limits(where, quiet, slip, [], grid.start), grid)


def _look_for_times(limits: "_Limits", grid: "_Grid") -> _Times:
    horizon = grid.start + timedelta(hours=grid.horizon_hours)
    moments = grid.moments()
    first, reason, detail = limits.next_allowed(grid.start)
    if first is None or first >= grid.expire or first > horizon:
        return _Times(slots=(), first=first, reason=reason, detail=detail)
    starts = [first]
    for moment in moments[1:]:
        if moment <= first:
            continue
        allowed, _, _ = limits.next_allowed(moment)
        if allowed is not None and allowed < grid.expire and allowed <= horizon and allowed != starts[-1]:
            starts.append(allowed)
    return _Times(slots=tuple(Slot(start=start, end=limits.end_of_slip(start, grid.expire)) for start in starts))


def _time_refusals(asked: _Asked, channel: str, times: _Times) -> list[Suppressed]:
    """Return why a channel has no slot."""
    expire = asked.expire_time
    if times.first is None:
        reason = times.reason or Reason.FREQUENCY_CAP
        return [Suppressed(channel=channel, reason=reason, detail=times.detail)]
    refusals = []
    if times.reason is not None:
        refusals.append(Suppressed(channel=channel, reason=times.reason, detail=times.detail, retry_time=times.first))
    if times.first >= expire:
        late = f"may be used from {times.first:%Y-%m-%d %H:%M} UTC, the message expires at {expire:%Y-%m-%d %H:%M} UTC"
        refusals.append(Suppressed(channel=channel, reason=Reason.EXPIRES_FIRST, detail=late))
    return refusals


def next_allowed_time(
    context: Context,
    rules: Rules,
    channel: str,
    moment: datetime,
    sent: Sequence[Contact] = (),
    counted: "Counted | None" = None,
) -> datetime | None:
    """Return the first moment from this one on at which quiet hours and caps allow the channel; None where there is none.

    Caps count what is `sent` as if it were among the customer's contacts, which are `counted` where that was done before.
    """
    where, slip = local_time.zone(context.customer.time_zone), rules.channels[channel].slip
    quiet = rules.quiet_hours_of(channel) if context.message.category != "transactional" else None
    held = _held(context, rules, moment, counted or Counted.of(context, rules), sent)
    caps = [of_cap for of_cap in held if of_cap.cap is None or of_cap.cap.counts(channel)]
    while True:
        later: datetime | None = moment if quiet is None else local_time.next_loud(moment, where, quiet)
        if later == moment:
            for of_cap in caps:
                later = _next_under_cap(moment, slip, of_cap.limit, of_cap.window, of_cap.groups)
                if later != moment:
                    break
            else:
                return moment
        if later is None:
            return None
        moment = later


class _Held(NamedTuple):
    """A cap, and messages that count towards it, those of one group once, as many as can fill it."""

    cap: Cap | None
    """None of the topic's cap."""
    limit: int
    window: timedelta
    groups: list[list[Contact]]


@dataclass(frozen=True, slots=True)
class Counted:
    """What caps may count of a customer: their contacts and what is reserved, and when those end, the last one first."""

    contacts: tuple[Contact, ...]
    ends: list[datetime]
    """Of those in the marketing category."""
    topic_ends: list[datetime]
    """Of other decisions' contacts with the message's topic."""
    caps: list[tuple[Cap, int, timedelta]]
    """With their limits for the message, and their windows."""

    @classmethod
    def of(cls, context: Context, rules: Rules) -> "Counted":
        """Count what a customer got or will get; nothing where the message is none that caps hold back."""
        message = context.message
        if message.category != "marketing":
            return cls((), [], [], [])
        contacts, topic, own = (*context.customer.contacts, *context.reserved), message.topic, context.decision_id
        ends = [c.end for c in contacts if c.category == "marketing"]
        ends.sort(reverse=True)
        topic_ends = [c.end for c in contacts if c.topic == topic and c.decision_id != own] if topic else []
        topic_ends.sort(reverse=True)
        return cls(
            contacts, ends, topic_ends, [(cap, cap.limit_for(message.priority), cap.window) for cap in rules.caps]
        )


def _are_fewer(ends: Sequence[datetime], since: datetime, limit: int) -> bool:
    """Tell whether fewer than `limit` of these, the last one first, end after a moment."""
    return limit > 0 and (len(ends) < limit or ends[limit - 1] <= since)


@dataclass(frozen=True, slots=True)
class _FullCap:
    """A cap that enough messages count towards to be full in some window, and those messages; those of one group count once."""

    cap: Cap | None
    """None of the topic's cap."""
    reason: Reason
    text: str
    limit: int
    window: timedelta
    counted: list[list[Contact]]
    full_until: datetime
    """From then on too few of the messages are left in a window to fill it."""


def _full_cap(
    cap: Cap | None, reason: Reason, text: str, limit: int, window: timedelta, counted: list[list[Contact]]
) -> _FullCap:
    ends = [group[0].end if len(group) == 1 else max(c.end for c in group) for group in counted]
    ends.sort(reverse=True)
    until = ends[limit - 1] + window if limit else datetime.max.replace(tzinfo=UTC)
    return _FullCap(cap, reason, text, limit, window, counted, until)


def _full_caps(context: Context, rules: Rules, moment: datetime) -> list[_FullCap]:
    """Return the caps that can be reached at that moment or later, whatever the channel."""
    found = []
    for cap, limit, window, groups in _held(context, rules, moment, Counted.of(context, rules), ()):
        if cap is None:
            hours = rules.topic_cap.window_hours if rules.topic_cap is not None else 0.0
            text = f"topic {context.message.topic}: {limit} in {hours:g} h"
            found.append(_full_cap(None, Reason.TOPIC_CAP, text, limit, window, groups))
            continue
        text = f"cap {cap.name}: {cap.limit} in {cap.window_hours:g} h"
        if limit < cap.limit:
            text += f", the last for messages of priority {cap.last_for_priority} or more"
        found.append(_full_cap(cap, Reason.FREQUENCY_CAP, text, limit, window, groups))
    return found


def _held(context: Context, rules: Rules, moment: datetime, counted: Counted, sent: Sequence[Contact]) -> list[_Held]:
    """Return the caps that can be reached at that moment or later, whatever the channel, with what is `sent` among the contacts."""
    message, found = context.message, list[_Held]()
    if message.category != "marketing":
        return found
    for cap, limit, window in counted.caps:
        since = moment - window  # what ended by then is in no window that holds a later send
        if _are_fewer(counted.ends, since, limit - len(sent)):
            continue
        contacts = (*counted.contacts, *sent)
        groups = [[c] for c in contacts if c.end > since and c.category == "marketing" and cap.counts(c.channel)]
        if len(groups) >= limit:
            found.append(_Held(cap, limit, window, groups))
    topic_cap = rules.topic_cap
    if topic_cap is not None and message.topic:
        since = moment - topic_cap.window
        if _are_fewer(counted.topic_ends, since, topic_cap.limit - len(sent)):
            return found
        cascades: dict[str, list[Contact]] = {}
        for contact in (*counted.contacts, *sent):
            if contact.topic == message.topic and contact.end > since and contact.decision_id != context.decision_id:
                cascades.setdefault(contact.decision_id, []).append(contact)
        if len(cascades) >= topic_cap.limit:
            found.append(_Held(None, topic_cap.limit, topic_cap.window, list(cascades.values())))
    return found


class _Limits:
    """What limits the time of a send through one channel to one customer. Caps that cannot be reached are left out."""

    def __init__(
        self,
        where: ZoneInfo,
        quiet: QuietHours | None,
        slip: timedelta,
        caps: Sequence[_FullCap],
        decide_time: datetime,
    ) -> None:
        self.zone = where
        self.quiet = quiet
        self.slip = slip
        self._caps = caps
        self._decide_time = decide_time

    @classmethod
    def of(
        cls,
        time_zone: str,
        category: Category,
        decide_time: datetime,
        rules: Rules,
        channel: str,
        caps: Sequence[_FullCap],
    ) -> "_Limits":
        """Return the limits of a channel, of the request's full caps those that count it."""
        is_bound = category != "transactional"
        return cls(
            local_time.zone(time_zone),
            rules.quiet_hours_of(channel) if is_bound else None,
            rules.channels[channel].slip,
            [full for full in caps if full.cap is None or full.cap.counts(channel)],
            decide_time,
        )

    def is_capped(self, moment: datetime) -> bool:
        """Tell whether a cap may be full at that moment or later."""
        return any(full.full_until > moment for full in self._caps)

    @property
    def key(self) -> object:
        """What tells these limits from those of the request's other channels: equal keys allow the same moments."""
        return self.quiet, self.slip, tuple(full.text for full in self._caps)

    def next_allowed(self, moment: datetime) -> tuple[datetime | None, Reason | None, str]:
        """Return the first allowed moment from this one on, and what was first in the way; no moment where there is none."""
        first_reason: Reason | None = None
        first_detail = ""
        while True:
            later: datetime | None = moment
            reason, detail = None, ""
            if self.quiet is not None:
                later = local_time.next_loud(moment, self.zone, self.quiet)
                if later != moment:
                    clock = f"{self.quiet.start:%H:%M}-{self.quiet.end:%H:%M} in {self.zone.key}"
                    reason, detail = Reason.QUIET_HOURS, f"quiet hours {clock}"
            if reason is None:
                for full in self._caps:
                    if full.full_until <= moment:
                        continue
                    later = _next_under_cap(moment, self.slip, full.limit, full.window, full.counted)
                    if later != moment:
                        reason, detail = full.reason, full.text + self._kept_for(moment, full.window, full.counted)
                        break
            if reason is None:
                return moment, first_reason, first_detail
            if first_reason is None:
                first_reason, first_detail = reason, detail
            if later is None:
                return None, first_reason, first_detail
            moment = later

    def _kept_for(self, moment: datetime, window: timedelta, counted: Sequence[Sequence[Contact]]) -> str:
        """Name the decisions whose sends are still to come and take places of a cap around that moment."""
        begin, end = max(moment - window, self._decide_time), moment + self.slip + window
        ids = list(dict.fromkeys(c.decision_id for group in counted for c in group if begin <= c.start < end))
        if not ids:
            return ""
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        return f", kept for decision {', '.join(ids[:_NAMED])}{more}"

    def end_of_slip(self, start: datetime, expire: datetime) -> datetime:
        """Return until when a send that may start then is still allowed."""
        end = min(start + self.slip, expire)
        if self.quiet is not None:
            end = min(end, local_time.next_quiet(start, self.zone, self.quiet))
        return end.astimezone(UTC)


def _next_under_cap(
    moment: datetime, slip: timedelta, limit: int, window: timedelta, counted: Sequence[Sequence[Contact]]
) -> datetime | None:
    """Return the first moment from this one on at which one more message keeps the cap; None where it never does."""
    if limit == 0:
        return None
    while (later := _full_until(moment, slip, limit, window, counted)) is not None:
        moment = later
    return moment


def _full_until(
    moment: datetime, slip: timedelta, limit: int, window: timedelta, counted: Sequence[Sequence[Contact]]
) -> datetime | None:
    """Return until when a send then would make a window too full, None where it would not.

    A window [t, t + length) may hold a message of [start, end] where start < t + length and t <= end. Of all windows that may
    hold the new message, the fullest begin at the last moment of one of the messages, so that no others are looked at.
    """
    last = moment + slip
    after, before = moment - window, last + window
    near = [kept for group in counted if (kept := [c for c in group if c.start < before and after < c.end])]
    if len(near) < limit:
        return None
    found: list[datetime] = []
    for begin in {last, *[min(c.end, last) for group in near for c in group]}:
        beyond = begin + window
        held = [[c.end for c in group if c.start < beyond and begin <= c.end] for group in near]
        ends = [max(ends) for ends in held if ends]
        if len(ends) >= limit:
            ends.sort(reverse=True)
            found.append(ends[limit - 1] + window)
    return max(found, default=None)
