"""Strategies that draw requests, contacts and caps for property tests."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

from hypothesis import strategies as st

from models.context import Contact, Context
from models.rules import Cap, QuietHours, Rules, TopicCap
from tests.unit.examples import CONTEXT, NIGHT, NOW, RULES, at, contact, with_contacts

MINUTE = timedelta(minutes=1)
CHANNELS = ("push", "email", "in_app", "sms")
SLIPS = {"push": 15.0, "email": 180.0, "in_app": 0.0, "sms": 45.0}


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def with_slips(rules: Rules, slips: dict[str, float]) -> Rules:
    channels = {
        key: replace(channel, slip_minutes=slips.get(key, channel.slip_minutes))
        for key, channel in rules.channels.items()
    }
    return replace(rules, channels=channels)


def some_caps() -> st.SearchStrategy[tuple[Cap, ...]]:
    one = st.builds(
        lambda limit, hours, channel: Cap(name="cap", limit=limit, window_hours=hours, channel=channel),
        st.integers(1, 3),
        st.sampled_from([1.0, 5.0, 24.0]),
        st.sampled_from(["*", *CHANNELS]),
    )
    return st.lists(one, min_size=1, max_size=3).map(tuple)


def some_contacts(spread_hours: int = 40) -> st.SearchStrategy[list[Contact]]:
    one = st.builds(
        lambda minutes, slip, channel, decision, category: contact(
            NOW + minutes * MINUTE,
            slip=slip * MINUTE,
            channel=channel,
            topic="cart",
            decision_id=decision,
            category=category,
        ),
        st.integers(-60 * spread_hours, 60 * spread_hours),
        st.sampled_from([0, 15, 45, 180, 2_000]),
        st.sampled_from(CHANNELS),
        st.sampled_from(["a", "b", "c", CONTEXT.decision_id]),
        st.sampled_from(["marketing", "marketing", "service"]),
    )
    return st.lists(one, max_size=7).map(lambda found: sorted(found, key=lambda c: c.start))


def some_quiet() -> st.SearchStrategy[QuietHours | None]:
    clock = st.builds(time, st.integers(0, 23), st.sampled_from([0, 30]))
    window = st.builds(lambda a, b: QuietHours(start=a, end=b), clock, clock).filter(lambda q: q.start != q.end)
    return st.none() | st.just(NIGHT) | window


@st.composite
def some_requests(draw: st.DrawFn) -> tuple[Context, Rules]:
    """A request and rules in which quiet hours, caps, expiry, slots and daylight saving meet."""
    base = draw(st.sampled_from([NOW, utc(2026, 3, 28, 12), utc(2026, 10, 24, 12), utc(2018, 11, 3, 12)]))
    moment = (
        base + draw(st.integers(0, 2_000)) * MINUTE + draw(st.sampled_from([0, 1, 59_999_999])) * timedelta.resolution
    )
    shift = base - NOW
    contacts = [replace(c, start=c.start + shift, end=c.end + shift) for c in draw(some_contacts())]
    zone = draw(
        st.sampled_from(
            ["Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Kiritimati"]
        )
    )
    context = with_contacts(*contacts, context=at(moment))
    context = replace(
        context,
        customer=replace(context.customer, time_zone=zone),
        not_before=moment + draw(st.integers(-300, 300)) * MINUTE,
        message=replace(
            context.message,
            expire_time=moment + draw(st.integers(-60, 3_000)) * MINUTE,
            category=draw(st.sampled_from(["marketing", "service", "transactional"])),
        ),
    )
    rules = replace(
        with_slips(RULES, SLIPS),
        caps=draw(some_caps()),
        topic_cap=draw(st.none() | st.just(TopicCap(limit=1, window_hours=6))),
        quiet_hours=draw(some_quiet()),
        timing=replace(
            RULES.timing, horizon_hours=draw(st.sampled_from([0.5, 6, 24])), slot_hours=draw(st.sampled_from([0.25, 3]))
        ),
    )
    return context, rules
