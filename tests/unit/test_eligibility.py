"""Which channels may be used, when, and why the others may not."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import local_time
from models.context import Contact, Content, Context, Reason
from models.eligibility import Eligibility, EligibleChannel, Suppressed, find_eligible, next_allowed_time
from models.rules import Cap, Category, FreeFirstMode, Rules, TopicCap
from models.sms import TextSize
from tests.unit.examples import (
    CONTEXT,
    DAY,
    HOUR,
    NOW,
    RUBLE,
    RULES,
    at,
    contact,
    option,
    with_channels,
    with_contacts,
    with_message,
)
from tests.unit.strategies import CHANNELS, MINUTE, SLIPS, some_caps, some_contacts, some_requests, utc, with_slips

AWAKE = replace(RULES, quiet_hours=None)
DAILY = Cap(name="day", limit=1, window_hours=24)


def refusals(context: Context, rules: Rules = RULES, channel: str = "push") -> list[Suppressed]:
    """Return what is said against a channel, having checked that it is not eligible."""
    found = find_eligible(with_channels(channel, context=context), rules)
    assert found.eligible == ()
    return list(found.suppressed)


def only_refusal(context: Context, rules: Rules = RULES, channel: str = "push") -> tuple[Reason, datetime | None]:
    (found,) = refusals(context, rules, channel)
    assert found.channel == channel
    assert found.detail
    return found.reason, found.retry_time


def eligible(found: Eligibility, channel: str = "push") -> EligibleChannel:
    return next(c for c in found.eligible if c.channel == channel)


def first_slot(context: Context, rules: Rules, channel: str = "push") -> datetime:
    return eligible(find_eligible(with_channels(channel, context=context), rules), channel).slots[0].start


def test_without_limits_a_channel_is_eligible_at_once_and_on_the_grid() -> None:
    """A channel that nothing holds back has a slot now, four at the rules' distance, then at twice and four times that."""
    far = replace(AWAKE, timing=replace(AWAKE.timing, horizon_hours=48))

    slots = eligible(find_eligible(CONTEXT, far)).slots

    assert slots[0].start == NOW
    assert [slot.start for slot in slots[1:]] == [NOW + n * HOUR for n in (3, 6, 9, 12, 18, 24, 36)]
    assert all(slot.end == slot.start + 15 * MINUTE for slot in slots)


@pytest.mark.parametrize(
    ("change", "channel", "reason"),
    [
        (lambda c: replace(c, constraints=replace(c.constraints, allowed_channels=("email",))), "push", "not_allowed"),
        (lambda c: replace(c, constraints=replace(c.constraints, denied_channels=("push",))), "push", "not_allowed"),
        (lambda c: replace(c, tried=("push",)), "push", "already_tried"),
        (lambda c: replace(c, paused=("push",)), "push", "channel_paused"),
        (lambda c: replace(c, options=(replace(option("push"), has_consent=False),)), "push", "no_consent"),
        (lambda c: replace(c, options=(replace(option("push"), is_reachable=False),)), "push", "unreachable"),
        (lambda c: with_content(c, characters=179), "push", "content_unfit"),
        (lambda c: with_content(c, has_image=True), "sms", "content_unfit"),
        (lambda c: at(utc(2024, 12, 31, 9), c), "sms", "no_price"),
        (
            lambda c: replace(c, constraints=replace(c.constraints, max_cost_micros=5_299_999)),
            "sms",
            "max_cost_exceeded",
        ),
    ],
)
def test_standing_refusal_has_its_reason_and_no_retry_time(
    change: Callable[[Context], Context], channel: str, reason: str
) -> None:
    """What time cannot mend suppresses a channel for its own reason and names no time to ask again."""
    context = change(with_channels(channel))

    (found,) = find_eligible(context, AWAKE).suppressed

    assert (found.channel, found.reason, found.retry_time) == (channel, Reason(reason), None)
    assert find_eligible(context, AWAKE).eligible == ()


def test_every_standing_refusal_is_told() -> None:
    """A channel against which several things speak is told all of them."""
    broken = replace(option("push"), has_consent=False, is_reachable=False)
    context = with_content(replace(CONTEXT, options=(broken,), paused=("push",), tried=("push",)), characters=1000)

    reasons = {found.reason for found in find_eligible(context, RULES).suppressed}

    assert reasons == {
        Reason.NO_CONSENT,
        Reason.UNREACHABLE,
        Reason.CHANNEL_PAUSED,
        Reason.ALREADY_TRIED,
        Reason.CONTENT_UNFIT,
    }


def test_content_just_fits_at_the_border() -> None:
    """As many characters as a channel carries fit, and a channel without a limit carries any length."""
    assert find_eligible(with_content(with_channels("push"), characters=178), RULES).eligible
    assert find_eligible(with_content(with_channels("email"), characters=10_000), RULES).eligible


def test_content_made_for_a_channel_is_what_must_fit_it() -> None:
    """A channel with content of its own is judged by that, not by the message's."""
    own = replace(option("push"), content=Content(size=TextSize(characters=10, encoding="gsm7", segments=1)))
    context = replace(with_content(CONTEXT, characters=5_000, has_image=True), options=(own,))

    assert find_eligible(context, RULES).suppressed == ()


def test_cost_at_the_limit_is_allowed_and_zero_limit_leaves_free_channels() -> None:
    """A send may cost exactly max_cost; with a max_cost of zero the free channels are left."""
    at_limit = replace(CONTEXT, constraints=replace(CONTEXT.constraints, max_cost_micros=5_300_000))
    nothing = replace(CONTEXT, constraints=replace(CONTEXT.constraints, max_cost_micros=0))

    assert "sms" in {c.channel for c in find_eligible(at_limit, RULES).eligible}
    assert {c.channel for c in find_eligible(nothing, RULES).eligible} == {"push", "email", "in_app"}


def test_price_override_is_the_price_and_stands_in_for_the_book() -> None:
    """A price override is what the send costs, also where the book has no line."""
    context = replace(at(utc(2024, 6, 3, 9)), options=(option("sms", price_override_micros=RUBLE),))
    dear = replace(context, constraints=replace(context.constraints, max_cost_micros=RUBLE - 1))

    assert eligible(find_eligible(context, RULES), "sms").price_micros == RUBLE
    assert only_reasons(find_eligible(dear, RULES)) == [Reason.MAX_COST_EXCEEDED]


@pytest.mark.parametrize(
    ("moment", "zone", "morning"),
    [
        (utc(2026, 11, 4, 18, 30), "Europe/Moscow", utc(2026, 11, 5, 6)),
        (utc(2026, 11, 5, 5, 59), "Europe/Moscow", utc(2026, 11, 5, 6)),
        (utc(2026, 11, 4, 20), "Asia/Kathmandu", utc(2026, 11, 5, 3, 15)),
        (utc(2026, 10, 25, 0), "Europe/Berlin", utc(2026, 10, 25, 8)),
        (utc(2026, 10, 3, 12), "Australia/Lord_Howe", utc(2026, 10, 3, 22)),
    ],
)
def test_at_night_a_channel_waits_for_the_morning(moment: datetime, zone: str, morning: datetime) -> None:
    """At night a channel's first slot is the end of quiet hours on the customer's clock."""
    context = at(moment)
    context = replace(context, customer=replace(context.customer, time_zone=zone))

    assert first_slot(context, RULES) == morning


def test_night_beyond_the_horizon_is_quiet_hours_with_the_morning_to_retry() -> None:
    """Where quiet hours outlast the horizon, the channel is suppressed until they end."""
    night = utc(2026, 11, 4, 20)
    brief = replace(RULES, timing=replace(RULES.timing, horizon_hours=2))

    assert only_refusal(at(night), brief) == (Reason.QUIET_HOURS, utc(2026, 11, 5, 6))


def test_message_that_expires_at_night_says_so() -> None:
    """Where the message expires before the morning, both the night and the expiry are told."""
    night = utc(2026, 11, 4, 20)
    context = at(night)
    context = replace(context, message=replace(context.message, expire_time=utc(2026, 11, 5, 6)))

    found = refusals(context)

    assert [f.reason for f in found] == [Reason.QUIET_HOURS, Reason.EXPIRES_FIRST]
    assert [f.retry_time for f in found] == [utc(2026, 11, 5, 6), None]


def test_message_that_lives_a_moment_past_the_night_may_be_sent() -> None:
    """A microsecond between the end of quiet hours and the expiry is a slot, that ends with the message."""
    context = at(utc(2026, 11, 4, 20))
    expire = utc(2026, 11, 5, 6) + timedelta(microseconds=1)
    context = replace(with_channels("push", context=context), message=replace(context.message, expire_time=expire))

    (slot,) = eligible(find_eligible(context, RULES)).slots

    assert (slot.start, slot.end) == (utc(2026, 11, 5, 6), expire)


@pytest.mark.parametrize("overdue", [timedelta(0), timedelta(days=3)])
def test_expired_message_expires_first(overdue: timedelta) -> None:
    """A message that has expired, even at this moment, is suppressed on every channel for that alone."""
    context = replace(CONTEXT, message=replace(CONTEXT.message, expire_time=NOW - overdue))

    found = find_eligible(context, AWAKE)

    assert found.eligible == ()
    assert [(s.reason, s.retry_time) for s in found.suppressed] == [(Reason.EXPIRES_FIRST, None)] * 5


def test_nothing_is_sent_before_it_may_be() -> None:
    """The first slot is at not_before, or at the decision where that is later."""
    later = replace(CONTEXT, not_before=NOW + 100 * MINUTE)
    earlier = replace(CONTEXT, not_before=NOW - DAY)

    assert first_slot(later, AWAKE) == NOW + 100 * MINUTE
    assert first_slot(earlier, AWAKE) == NOW


def test_slot_is_cut_short_by_the_night() -> None:
    """A slot that begins shortly before quiet hours ends with their start."""
    context = with_channels("push", context=at(utc(2026, 11, 4, 18, 20)))

    slot = eligible(find_eligible(context, RULES)).slots[0]

    assert (slot.start, slot.end) == (utc(2026, 11, 4, 18, 20), utc(2026, 11, 4, 18, 30))


def test_channel_without_quiet_hours_is_eligible_at_night() -> None:
    """A channel that disturbs nobody may be used at night."""
    assert first_slot(at(utc(2026, 11, 4, 22)), RULES, "in_app") == utc(2026, 11, 4, 22)


def test_full_cap_suppresses_until_the_window_has_moved_on() -> None:
    """A channel under a full cap is suppressed until its message's last moment leaves the window."""
    cap = replace(AWAKE, caps=(replace(DAILY, window_hours=72),))
    context = with_contacts(contact(NOW - HOUR, channel="email", slip=15 * MINUTE))
    context = replace(context, message=replace(context.message, expire_time=NOW + 30 * DAY))

    assert only_refusal(context, cap) == (Reason.FREQUENCY_CAP, NOW - HOUR + 15 * MINUTE + 3 * DAY)


def test_cap_and_night_together_are_waited_for() -> None:
    """Where the cap's window ends at night, the channel is free again in the morning."""
    rules = replace(RULES, caps=(DAILY,))
    sent = utc(2026, 11, 3, 20)

    assert first_slot(with_contacts(contact(sent)), rules) == utc(2026, 11, 5, 6)


def test_message_of_exactly_a_window_ago_does_not_count() -> None:
    """Two messages exactly a window apart keep a cap of one."""
    rules = replace(AWAKE, caps=(DAILY,))

    assert first_slot(with_contacts(contact(NOW - DAY)), rules) == NOW
    assert first_slot(with_contacts(contact(NOW - DAY + timedelta(microseconds=1))), rules) > NOW


def test_message_still_to_be_sent_counts() -> None:
    """A message scheduled within the window, slip and all, keeps a new one from going before it."""
    rules = with_slips(replace(AWAKE, caps=(DAILY,)), {"push": 15})
    soon = contact(NOW + DAY + 15 * MINUTE - timedelta(microseconds=1), slip=HOUR)
    later = contact(NOW + DAY + 15 * MINUTE, slip=HOUR)
    context = replace(CONTEXT, message=replace(CONTEXT.message, expire_time=NOW + 9 * DAY))

    assert first_slot(with_contacts(later, context=context), rules) == NOW
    assert next_allowed_time(with_contacts(soon, context=context), rules, "push", NOW) == soon.end + DAY


def test_cap_of_none_suppresses_for_good() -> None:
    """A cap of zero suppresses its channel without a time to ask again."""
    rules = replace(AWAKE, caps=(Cap(name="no-sms", channel="sms", limit=0, window_hours=1),))

    assert only_refusal(CONTEXT, rules, "sms") == (Reason.FREQUENCY_CAP, None)
    assert first_slot(CONTEXT, rules, "push") == NOW


def test_cap_of_a_channel_counts_that_channel_alone() -> None:
    """A cap on one channel neither counts nor limits the others."""
    rules = replace(AWAKE, caps=(replace(DAILY, channel="sms"),))

    assert first_slot(with_contacts(contact(NOW, channel="push")), rules, "sms") == NOW
    assert first_slot(with_contacts(contact(NOW, channel="sms")), rules, "push") == NOW
    assert next_allowed_time(with_contacts(contact(NOW, channel="sms")), rules, "sms", NOW) == NOW + DAY


def test_longest_slip_does_not_delay_past_the_first_free_moment() -> None:
    """Where one of two messages may be sent much later than the other, the cap is free as soon as one has left."""
    rules = with_slips(replace(AWAKE, caps=(Cap(name="two", limit=2, window_hours=24),)), {"push": 0})
    wide = contact(NOW + HOUR, slip=100 * HOUR)
    narrow = contact(NOW + 2 * HOUR, slip=HOUR)

    assert next_allowed_time(with_contacts(wide, narrow), rules, "push", NOW) == NOW + 27 * HOUR


def test_message_between_two_others_needs_room_on_both_sides_only() -> None:
    """A message fits between two others that are a window apart, whatever its own slip."""
    rules = with_slips(replace(AWAKE, caps=(Cap(name="two", limit=2, window_hours=24),)), {"push": 60})
    before, after = contact(NOW - 12 * HOUR), contact(NOW + 12 * HOUR)

    assert next_allowed_time(with_contacts(before, after), rules, "push", NOW) == NOW


@pytest.mark.parametrize(("category", "free"), [("marketing", False), ("service", True), ("transactional", True)])
def test_caps_are_for_marketing(category: Category, free: bool) -> None:
    """Caps hold back marketing, and neither service nor transactional messages."""
    rules = replace(AWAKE, caps=(DAILY,), topic_cap=TopicCap(limit=1, window_hours=72))
    context = with_message(with_contacts(contact(NOW, topic="cart")), category=category)

    assert (next_allowed_time(context, rules, "push", NOW) == NOW) is free


@pytest.mark.parametrize("category", ["service", "transactional"])
def test_other_messages_do_not_fill_marketing_caps(category: Category) -> None:
    """What is not marketing is not counted in caps of marketing."""
    rules = replace(AWAKE, caps=(DAILY,))

    assert first_slot(with_contacts(contact(NOW, category=category)), rules) == NOW


@pytest.mark.parametrize(("category", "waits"), [("marketing", True), ("service", True), ("transactional", False)])
def test_only_transactional_messages_are_sent_at_night(category: Category, waits: bool) -> None:
    """Quiet hours hold back all but transactional messages."""
    night = utc(2026, 11, 4, 20)
    context = with_message(at(night), category=category)

    assert first_slot(context, RULES) == (utc(2026, 11, 5, 6) if waits else night)


@pytest.mark.parametrize("category", ["marketing", "service", "transactional"])
def test_consent_and_reachability_hold_for_every_category(category: Category) -> None:
    """No category is sent without consent or to a channel that does not reach the customer."""
    options = (replace(option("push"), has_consent=False), replace(option("email"), is_reachable=False))
    context = with_message(replace(CONTEXT, options=options), category=category)

    found = find_eligible(context, RULES)

    assert found.eligible == ()
    assert only_reasons(found) == [Reason.NO_CONSENT, Reason.UNREACHABLE]


def test_topic_is_capped_across_channels_and_campaigns() -> None:
    """A topic that the customer has had is suppressed on every channel until its window has passed."""
    rules = replace(AWAKE, topic_cap=TopicCap(limit=1, window_hours=72))
    context = with_contacts(contact(NOW - HOUR, channel="email", topic="cart", category="service"))
    context = replace(context, message=replace(context.message, expire_time=NOW + 9 * DAY))

    assert only_refusal(context, rules) == (Reason.TOPIC_CAP, NOW - HOUR + 3 * DAY)


def test_topic_cap_leaves_other_topics_and_messages_without_one() -> None:
    """A message of another topic, or of none, is not under the topic's cap."""
    rules = replace(AWAKE, topic_cap=TopicCap(limit=1, window_hours=72))
    without = replace(CONTEXT, message=replace(CONTEXT.message, topic=""))

    assert first_slot(with_contacts(contact(NOW, topic="sale")), rules) == NOW
    assert first_slot(with_contacts(contact(NOW, topic=""), context=without), rules) == NOW


def test_steps_of_one_cascade_do_not_cap_each_other() -> None:
    """A later step of a cascade is not under the topic cap of the earlier ones, but is under frequency caps."""
    mine = contact(NOW - HOUR, channel="email", topic="cart", decision_id=CONTEXT.decision_id)
    topic = replace(AWAKE, topic_cap=TopicCap(limit=1, window_hours=72))
    frequency = replace(AWAKE, caps=(DAILY,))

    assert first_slot(with_contacts(mine), topic) == NOW
    assert first_slot(with_contacts(mine), frequency) == NOW - HOUR + DAY


def test_steps_of_another_cascade_count_once() -> None:
    """Several steps of one other cascade fill one place of a topic cap."""
    rules = replace(AWAKE, topic_cap=TopicCap(limit=2, window_hours=72))
    steps = [contact(NOW - n * HOUR, topic="cart", decision_id="other") for n in (9, 5, 1)]

    assert first_slot(with_contacts(*steps), rules) == NOW


def test_cascade_counts_in_a_topic_window_by_any_step_in_it() -> None:
    """A cascade whose first step has left the topic's window counts by its later step, which has not."""
    rules = replace(AWAKE, topic_cap=TopicCap(limit=2, window_hours=72))
    early = contact(NOW - 80 * HOUR, topic="cart", decision_id="long")
    late = contact(NOW - 10 * HOUR, topic="cart", decision_id="long")
    other = contact(NOW - 5 * HOUR, topic="cart", decision_id="short")

    assert next_allowed_time(with_contacts(early, late, other), rules, "push", NOW) == NOW + 62 * HOUR


def test_strict_free_first_closes_paid_channels_while_a_free_one_is_left() -> None:
    """Under strict free_first a paid channel waits until no free one is eligible."""
    strict = replace(CONTEXT, constraints=replace(CONTEXT.constraints, free_first="strict"))
    tried = replace(strict, tried=("push", "email", "in_app"))

    found, after = find_eligible(strict, AWAKE), find_eligible(tried, AWAKE)

    assert {c.channel for c in found.eligible} == {"push", "email", "in_app"}
    assert {(s.channel, s.reason) for s in found.suppressed} == {
        ("sms", Reason.FREE_CHANNEL_UNTRIED),
        ("viber", Reason.FREE_CHANNEL_UNTRIED),
    }
    assert {c.channel for c in after.eligible} == {"viber", "sms"}


@pytest.mark.parametrize(
    ("of_rules", "of_request", "closed"),
    [("strict", None, True), ("strict", "by_value", False), ("by_value", "strict", True), ("by_value", None, False)],
)
def test_request_decides_over_the_rules_on_free_first(
    of_rules: FreeFirstMode, of_request: FreeFirstMode | None, closed: bool
) -> None:
    """The request's free_first holds over the rules file's, which holds where the request says nothing."""
    rules = replace(AWAKE, policy=replace(AWAKE.policy, free_first=of_rules))
    context = replace(CONTEXT, constraints=replace(CONTEXT.constraints, free_first=of_request))

    found = find_eligible(context, rules)

    assert ("sms" not in {c.channel for c in found.eligible}) is closed


def test_request_without_channels_has_none() -> None:
    """A request without channels has neither eligible nor suppressed ones."""
    assert find_eligible(replace(CONTEXT, options=()), RULES) == Eligibility(eligible=(), suppressed=())


def test_message_of_the_last_year_is_judged_like_any_other() -> None:
    """An expiry at the end of the calendar does not break the search for slots."""
    end = datetime.max.replace(tzinfo=UTC)
    context = replace(CONTEXT, message=replace(CONTEXT.message, expire_time=end))

    assert len(eligible(find_eligible(context, AWAKE)).slots) == 6


# --- properties ---------------------------------------------------------------------------------------------------------------


def could_overfill(contacts: Iterable[Contact], limit: int, window: timedelta) -> bool:
    """Tell by trying every choice whether more than `limit` messages may be sent within less than a window."""
    return any(
        max(c.start for c in chosen) - min(c.end for c in chosen) < window
        for chosen in combinations(contacts, limit + 1)
    )


def counts(cap: Cap, contacts: Iterable[Contact]) -> list[Contact]:
    return [c for c in contacts if c.category == "marketing" and cap.channel in ("*", c.channel)]


@given(caps=some_caps(), data=st.data())
def test_caps_hold_wherever_in_their_slip_messages_are_sent(caps: tuple[Cap, ...], data: st.DataObject) -> None:
    """However allowed slots are taken up, near or far, no window can hold more messages than its cap."""
    rules = with_slips(replace(AWAKE, caps=caps), SLIPS)
    sent: list[Contact] = []
    moment = NOW
    for number in range(data.draw(st.integers(1, 8), label="asks")):
        moment += data.draw(st.integers(0, 600), label="minutes") * MINUTE
        channel = data.draw(st.sampled_from(CHANNELS), label="channel")
        context = with_channels(channel, context=with_contacts(*sent, context=at(moment)))
        found = find_eligible(replace(context, decision_id=f"d{number}"), rules).eligible
        if found:
            slot = data.draw(st.sampled_from(found[0].slots), label="slot")
            sent.append(contact(slot.start, slip=slot.end - slot.start, channel=channel, decision_id=f"d{number}"))
            sent.sort(key=lambda c: c.start)

    for cap in caps:
        assert not could_overfill(counts(cap, sent), cap.limit, cap.window)
    times = sorted(
        c.start + data.draw(st.floats(0, 1), label="slip") * (c.end - c.start) for c in sent if c.channel == "email"
    )
    for cap in (cap for cap in caps if cap.channel in ("*", "email")):
        assert all(b - a >= cap.window for a, b in zip(times, times[cap.limit :], strict=False))


@given(limit=st.integers(1, 3), data=st.data())
def test_topic_cap_holds_between_cascades(limit: int, data: st.DataObject) -> None:
    """However steps of cascades are sent, no window of a topic can hold more cascades than its cap."""
    topic = TopicCap(limit=limit, window_hours=10)
    rules = with_slips(replace(AWAKE, topic_cap=topic), SLIPS)
    sent: list[Contact] = []
    moment = NOW
    for _ in range(data.draw(st.integers(1, 8), label="asks")):
        moment += data.draw(st.integers(0, 600), label="minutes") * MINUTE
        decision = data.draw(st.sampled_from("abcd"), label="decision")
        context = with_channels("push", context=with_contacts(*sent, context=at(moment)))
        found = find_eligible(replace(context, decision_id=decision), rules).eligible
        if found:
            slot = data.draw(st.sampled_from(found[0].slots), label="slot")
            sent.append(contact(slot.start, slip=slot.end - slot.start, topic="cart", decision_id=decision))
            sent.sort(key=lambda c: c.start)

    for chosen in combinations(sent, limit + 1):
        if len({c.decision_id for c in chosen}) == limit + 1:
            assert not could_overfill(chosen, limit, topic.window)


@given(contacts=some_contacts(), cap=some_caps().map(lambda caps: caps[0]), channel=st.sampled_from(CHANNELS))
def test_next_allowed_time_is_the_first_that_keeps_the_cap(contacts: list[Contact], cap: Cap, channel: str) -> None:
    """The moment found keeps the cap, and no whole minute before it does."""
    rules = with_slips(replace(AWAKE, caps=(cap,)), SLIPS)
    others = counts(cap, contacts) if cap.channel in ("*", channel) else []
    slip = rules.channels[channel].slip

    first = next_allowed_time(with_contacts(*contacts), rules, channel, NOW)

    def breaks(moment: datetime) -> bool:
        new = contact(moment, slip=slip, channel=channel)
        return any(could_overfill((new, *chosen), cap.limit, cap.window) for chosen in combinations(others, cap.limit))

    assert first is not None
    assert not breaks(first)
    minutes = int((first - NOW) / MINUTE)
    assert all(breaks(NOW + minute * MINUTE) for minute in range(0, minutes, 11))
    assert first == NOW or breaks(first - timedelta(microseconds=1))


@given(some_requests())
def test_slots_keep_every_rule_of_time(request_and_rules: tuple[Context, Rules]) -> None:
    """Slots are in order, each once, within [not_before, expire) and the horizon, and never reach into quiet hours."""
    context, rules = request_and_rules
    start = max(context.not_before, context.decide_time)
    horizon = start + timedelta(hours=rules.timing.horizon_hours)
    where = local_time.zone(context.customer.time_zone)

    found = find_eligible(context, rules)

    for channel in found.eligible:
        starts = [slot.start for slot in channel.slots]
        assert starts == sorted(set(starts))
        for slot in channel.slots:
            assert start <= slot.start < context.message.expire_time
            assert slot.start <= horizon
            assert (
                slot.start
                <= slot.end
                <= min(context.message.expire_time, slot.start + rules.channels[channel.channel].slip)
            )
            quiet = rules.quiet_hours_of(channel.channel)
            if quiet is not None and context.message.category != "transactional":
                assert not local_time.is_quiet(slot.start, where, quiet)
                assert slot.end <= local_time.next_quiet(slot.start, where, quiet)


@given(some_requests())
def test_every_channel_is_either_eligible_or_suppressed(request_and_rules: tuple[Context, Rules]) -> None:
    """Each channel asked for is eligible with a slot, or suppressed with a reason, and never both."""
    context, rules = request_and_rules

    found = find_eligible(context, rules)

    kept = [c.channel for c in found.eligible]
    gone = {s.channel for s in found.suppressed}
    assert len(kept) == len(set(kept))
    assert all(c.slots for c in found.eligible)
    assert set(kept) | gone == {o.channel for o in context.options}
    assert not set(kept) & gone


@given(some_requests())
def test_retry_time_is_when_the_channel_is_eligible_and_not_before(request_and_rules: tuple[Context, Rules]) -> None:
    """Asked again at the retry_time, a channel that time alone held back is eligible at once; a moment before, it waits."""
    context, rules = request_and_rules

    for refused in find_eligible(context, rules).suppressed:
        retry = refused.retry_time
        if retry is not None and retry < context.message.expire_time:
            again = with_channels(refused.channel, context=replace(context, decide_time=retry, not_before=retry))
            early = retry - timedelta(microseconds=1)
            before = replace(again, decide_time=early, not_before=early)
            assert first_slot(again, rules, refused.channel) == retry
            assert next_allowed_time(before, rules, refused.channel, early) == retry


def with_content(context: Context, *, characters: int = 60, has_image: bool = False) -> Context:
    size = TextSize(characters=characters, encoding="gsm7", segments=1)
    return replace(context, message=replace(context.message, content=Content(size=size, has_image=has_image)))


def only_reasons(found: Eligibility) -> list[Reason]:
    return [suppressed.reason for suppressed in found.suppressed]
