"""Where clocks change: local time is the zone's, quiet hours are kept, and expectations stay exact."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from models.local_time import is_quiet
from tests.training_world.worlds import clock_change_world, sample_net
from training.world.clock import WEEK, to_hour, to_time
from training.world.money import make_bench
from training.world.oracle import enumerate_plans, find_candidates
from training.world.people import EMAIL, SMS, make_population
from training.world.policies import Engagement, MostEngaged, Oracle, RepeatedSms, RuleOrder, ServiceCore, Uniform
from training.world.protocol import Policy
from training.world.run import World
from training.world.truth import OWN_STEP_TIREDNESS, Send
from training.world.zones import CHANGING_SHARES, ZONES, next_change_day, week_hours, week_hours_of_all

BERLIN, NEW_YORK = ZONES.index("Europe/Berlin"), ZONES.index("America/New_York")
EUROPE_CHANGES = to_hour(datetime(2026, 10, 25, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def world() -> World:
    return clock_change_world()


@pytest.mark.parametrize("zone", range(len(ZONES)), ids=ZONES)
def test_local_hours_are_those_of_the_zone(zone: int) -> None:
    """In every hour of the four years around the start, the hour of the week is what a clock in that zone shows."""
    hours = np.arange(-WEEK * 10, WEEK * 52 * 3)

    found = week_hours(zone, hours)

    where = ZoneInfo(ZONES[zone])
    moments = [to_time(int(hour)).astimezone(where) for hour in hours]
    assert found.tolist() == [24 * moment.weekday() + moment.hour for moment in moments]
    assert np.array_equal(week_hours_of_all(hours[:50])[zone], found[:50])


def test_change_days_are_those_of_the_calendar() -> None:
    """Europe's clocks change on 2026-10-25, America's on 11-01 and on 2027-03-14, Europe's again on 03-28."""
    found, hour = [], 0
    for _ in range(4):
        hour = next_change_day(hour)
        found.append(to_time(hour).date().isoformat())
        hour += 1

    assert found == ["2026-10-25", "2026-11-01", "2027-03-14", "2027-03-28"]
    assert next_change_day(EUROPE_CHANGES - 1) == EUROPE_CHANGES - 1


def test_customers_elsewhere_are_the_same_but_for_where_they_live() -> None:
    """Other shares of zones change zones alone; by default nobody lives where clocks change."""
    home, abroad = make_population(500, 3), make_population(500, 3, CHANGING_SHARES)

    assert home.zone.max() < BERLIN
    assert 0.5 < np.mean(abroad.zone >= BERLIN) < 0.7
    assert np.array_equal(home.rhythm, abroad.rhythm)
    assert np.array_equal(home.consent, abroad.consent)


def test_the_online_part_crosses_a_change() -> None:
    """Clocks change after a third of the online part, whatever the length of log and online part."""
    for log, online in ((600, 200), (600, 3000), (2000, 6000)):
        bench = make_bench(0, log, online, "clock_change", customers=200)
        arrive = bench.world.messages.arrive
        days = int(arrive[-1] - bench.change_hour) // 24 + 1

        assert bench.change_hour == next_change_day(bench.change_hour)
        assert arrive[0] < bench.change_hour < arrive[-1]
        assert days >= 1


def test_rhythm_follows_the_local_clock(world: World) -> None:
    """Attention at nine in the morning in Berlin is the same in the week before and after the change, an hour later in UTC."""
    person = int(np.flatnonzero(world.people.zone == BERLIN)[0])
    monday = to_hour(datetime(2026, 10, 19, 7, tzinfo=UTC))
    channel = np.array([EMAIL, SMS])

    before = world.truth.rhythm(person, channel, monday + np.arange(48))
    after = world.truth.rhythm(person, channel, monday + 2 * WEEK + 1 + np.arange(48))

    assert np.array_equal(before, after)


def test_visits_follow_the_local_clock(world: World) -> None:
    """Customers in Berlin visit at the same local hours after the change as before: mean hours of the day within an hour of noise."""
    where = ZoneInfo("Europe/Berlin")
    people = np.flatnonzero(world.people.zone == BERLIN)
    night = {False: 0, True: 0}
    total = {False: 0, True: 0}
    for person in people:
        mine = world.visits.hours[world.visits.begin[person] : world.visits.begin[person + 1]]
        for hour in mine:
            is_after = bool(hour >= EUROPE_CHANGES)
            total[is_after] += 1
            night[is_after] += 2 <= to_time(int(hour)).astimezone(where).hour < 6
    shares = [night[after] / total[after] for after in (False, True)]
    spread = np.sqrt(shares[0] / total[True] + shares[0] / total[False])

    assert total[True] > 300
    assert abs(shares[0] - shares[1]) < 4.5 * spread


def policies(world: World) -> list[Policy]:
    rules = world.rules
    log = world.run(Uniform(rules))
    engagement = Engagement(log.steps, log.outcomes)
    return [
        Uniform(rules, steps=3),
        RepeatedSms(rules),
        RuleOrder(("push", "email", "sms"), rules),
        MostEngaged(engagement, rules, is_best_hour=True),
        MostEngaged(engagement, rules, is_best_hour=False),
        ServiceCore(rules, None),
        Oracle(world),
    ]


def test_quiet_hours_are_kept_across_the_change(world: World) -> None:
    """Whatever the policy, nothing is sent in the customer's local quiet hours, in the days around both changes."""
    for policy in policies(world):
        result = world.run(policy)
        channels = {
            (s.context.decision_id, s.context.step): (s.reply.action.channel, s.context.customer.time_zone)
            for s in result.steps
        }
        near = 0
        for outcome in result.outcomes:
            if outcome.type == "sent":
                channel, name = channels[outcome.decision_id, outcome.step]
                quiet = world.rules.quiet_hours_of(channel)
                assert quiet is None or not is_quiet(outcome.occur_time, ZoneInfo(name), quiet), policy.name
                near += name == "Europe/Berlin" and abs(outcome.occur_time - to_time(EUROPE_CHANGES)) < timedelta(
                    days=2
                )
        assert near > 5, policy.name


def crossing(world: World) -> list[int]:
    """Messages to customers in Berlin that live on both sides of the change."""
    messages = world.messages
    zone = world.people.zone[messages.person]
    lives = (messages.arrive < EUROPE_CHANGES) & (messages.arrive + messages.lifetime > EUROPE_CHANGES + 12)
    return [int(i) for i in np.flatnonzero((zone == BERLIN) & lives)]


def test_enumeration_is_exact_across_the_change(world: World) -> None:
    """What the oracle's matrix products say of plans over the change is what the sums of the truth say, to 1e-9 roubles."""
    rng = np.random.default_rng(0)
    found = crossing(world)[:15]
    assert len(found) == 15
    for index in found:
        case, candidates = world.truth.case(index), find_candidates(world.context(index), world.rules)
        plans = enumerate_plans(world.truth, case, candidates)
        for row in rng.choice(len(plans.gross), size=min(20, len(plans.gross)), replace=False):
            members = [int(i) for i in plans.steps[row] if i >= 0]
            expected = world.truth.expected(case, [candidates.send(i, k) for k, i in enumerate(members, start=1)])

            assert plans.gross[row] - plans.spend[row] == pytest.approx(expected.net, abs=1e-9)


def test_expected_net_is_the_mean_of_samples_across_the_change(world: World) -> None:
    """A cascade with a step on each side of the change earns on average what is expected: 500,000 samples, 4.5 standard errors."""
    index = max(crossing(world), key=lambda i: world.truth.case(i).margin * world.truth.case(i).prior[2])
    case = world.truth.case(index)
    sends = [
        Send(channel=EMAIL, hour=case.arrive + 1, tiredness=0.0, price=0.0),
        Send(channel=SMS, hour=EUROPE_CHANGES + 8, tiredness=OWN_STEP_TIREDNESS, price=5.3),
    ]

    net = sample_net(world.truth, case, sends, 500_000, np.random.default_rng(5))

    assert abs(net.mean() - world.truth.expected(case, sends).net) < 4.5 * net.std() / np.sqrt(len(net))
