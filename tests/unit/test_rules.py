"""The rules file: what it must say, and how each mistake in it is named."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import service
from models.errors import RulesInvalid
from models.rules import PolicyName, Rules, parse_rules

DEFAULT = Path(service.__file__).parent / "rules" / "default.toml"
LINES = """
version = "1"
currency = "RUB"
country = "RU"
time_zone = "Europe/Moscow"
[channels.push]
paid = false
[channels.sms]
paid = true
[[prices]]
channel = "sms"
start_date = 2025-01-01
price = "5.30"
[cascade]
order = ["push", "sms"]
"""
BUDGET = '[[budgets]]\nname = "a"\namount = "1000"\nperiod = "day"\n'
TOTAL = BUDGET.replace("day", "total")


def mistakes(text: str) -> dict[str, str]:
    """Return what a broken rules file is refused for, by key."""
    with pytest.raises(RulesInvalid) as caught:
        parse_rules(text, "shop.toml")
    assert str(caught.value).startswith("shop.toml refused: ")
    return {violation.field: violation.description for violation in caught.value.violations}


def changed(old: str, new: str) -> str:
    assert LINES.count(old) == 1
    return LINES.replace(old, new)


def test_default_file_parses() -> None:
    """The rules file that the service ships is in order."""
    rules = parse_rules(DEFAULT.read_text(encoding="utf-8"))

    assert rules.channels["sms"].paid
    assert rules.policy.exploration_budget == 50_000_000


def test_smallest_file_parses() -> None:
    """A file with one free channel and the paid one is enough; the rest has defaults."""
    rules = parse_rules(LINES)

    assert rules.prices[0].price == 5_300_000
    assert rules.quiet_hours is None
    assert rules.holdout.share == 0


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ('version = "1"', 'version = "1', "", "line 2"),
        ('version = "1"', 'version = "1"\nversion = "2"', "", "line 3"),
        ('version = "1"', 'version = ""', "version", "at least 1 character"),
        ('version = "1"', "", "version", "required"),
        ('version = "1"', 'version = "1"\ndigest = "x"', "digest", "remove"),
        ('version = "1"', 'version = "1"\nattribution_days = nan', "attribution_days", "365"),
        ('currency = "RUB"', 'currency = "rubles"', "currency", "pattern"),
        ('country = "RU"', 'country = "ru"', "country", "pattern"),
        ('"Europe/Moscow"', '"Europe/Moskva"', "time_zone", "Europe/Moskva"),
        ('"Europe/Moscow"', '"Europe"', "time_zone", "Europe/Moscow"),
        ('"Europe/Moscow"', '"../etc/passwd"', "time_zone", "Europe/Moscow"),
        ("paid = false", "paid = false\ncolour = 1", "channels.push.colour", "unknown key"),
        ("paid = false", "paid = false\nwait-minutes = 1", "channels.push.wait-minutes", "unknown key"),
        ("paid = false", "images = false", "channels.push.paid", "required"),
        ("paid = false", "paid = false\nunsubscribe_rate = 1.5", "channels.push.unsubscribe_rate", "1"),
        ("paid = false", "paid = false\nslip_minutes = -1", "channels.push.slip_minutes", "0"),
        (
            "paid = false",
            "paid = false\ndelivery_ttl_minutes = 0",
            "channels.push.delivery_ttl_minutes",
            "greater than 0",
        ),
        ("paid = false", "paid = false\nwait_minutes = inf", "channels.push.wait_minutes", ""),
        ("paid = false", 'paid = false\nquiet_hours = "never"', "channels.push.quiet_hours", "'none'"),
        (
            "paid = false",
            'paid = false\nquiet_hours = { start = "22:00", end = "9" }',
            "channels.push.quiet_hours.end",
            "HH:MM",
        ),
        (
            "paid = false",
            'paid = false\nquiet_hours = { start = "22:00" }',
            "channels.push.quiet_hours.end",
            "required",
        ),
        (
            "paid = false",
            'paid = false\nquiet_hours = { start = "09:00", end = "09:00" }',
            "channels.push.quiet_hours",
            "same",
        ),
        ("[channels.push]", "[channels.web-push]\npaid = false\n[channels.push]", "channels.web-push", "pattern"),
        ("[channels.push]", "[channels.none]\npaid = false\n[channels.push]", "channels.none", "no send"),
        ('price = "5.30"', 'price = "-5.30"', "prices[0].price", "negative"),
        ('price = "5.30"', "price = 5.30", "prices[0].price", "in quotes"),
        ('price = "5.30"', "price = true", "prices[0].price", "in quotes"),
        ('price = "5.30"', 'price = "five"', "prices[0].price", "in quotes"),
        ('price = "5.30"', 'price = "NaN"', "prices[0].price", "in quotes"),
        ('price = "5.30"', 'price = "sNaN"', "prices[0].price", "in quotes"),
        ('price = "5.30"', 'price = "Infinity"', "prices[0].price", "above"),
        ('price = "5.30"', 'price = "1e400"', "prices[0].price", "above"),
        ('price = "5.30"', 'price = "1E+999999"', "prices[0].price", ""),
        ('price = "5.30"', 'price = "0.0000001"', "prices[0].price", "six decimals"),
        ('price = "5.30"', f'price = "1.{"0" * 40}1"', "prices[0].price", "six decimals"),
        ('price = "5.30"', "", "prices[0].price", "required"),
        ('price = "5.30"', 'price = "5.30"\ncategory = "news"', "prices[0].category", "'*'"),
        ('price = "5.30"', 'price = "5.30"\ncountry = "Russia"', "prices[0].country", "'*'"),
        ("start_date = 2025-01-01", 'start_date = "soon"', "prices[0].start_date", "date"),
        ('channel = "sms"', 'channel = "fax"', "prices[0].channel", "unknown channel 'fax'"),
        ("paid = true", "paid = false", "channels.sms.paid", "false but"),
        ("paid = false", "paid = true", "channels.push.paid", "no price"),
        ('order = ["push", "sms"]', 'order = ["push", "fax"]', "cascade.order[1]", "'fax'"),
        ('order = ["push", "sms"]', 'order = ["push", "push"]', "cascade.order", "twice"),
        ('order = ["push", "sms"]', 'order = ["sms", "push"]', "cascade.order", "free ones first"),
        ('order = ["push", "sms"]', "order = []", "cascade.order", "at least 1"),
        ('order = ["push", "sms"]', 'order = ["push"]\nmax_steps = 6', "cascade.max_steps", "5"),
    ],
)
def test_mistake_is_named_by_its_key(old: str, new: str, key: str, says: str) -> None:
    """A file with one mistake is refused by the key of the mistake, with what is wrong about it."""
    found = mistakes(changed(old, new))

    assert key in found
    assert says.lower() in found[key].lower()


@pytest.mark.parametrize(
    ("table", "key", "says"),
    [
        ('[quiet_hours]\nstart = "22:00"\nend = "22:00"', "quiet_hours", "same"),
        ('[quiet_hours]\nstart = "24:00"\nend = "09:00"', "quiet_hours.start", "23:59"),
        ("[policy]\nexploration_floor = 0.2\nexploration_limit = 0.1", "policy.exploration_floor", "exploration_limit"),
        ("[policy]\nexploration_floor = 0", "policy.exploration_floor", "greater than 0"),
        ("[policy]\nexploration_limit = 1.5", "policy.exploration_limit", "1"),
        ("[policy]\npaid_optimism = 0.5", "policy.paid_optimism", "1"),
        ('[policy]\nname = "linucb"', "policy.name", "inverse_gap"),
        ('[policy]\nname = "inverse_gap"', "policy.exploration_budget", "missing"),
        ('[policy]\nexploration_budget = "0"', "policy.exploration_budget", "greedy"),
        ('[policy]\nexploration_budget = "-5"', "policy.exploration_budget", "negative"),
        ("[policy]\nexploration_budget = 500.0", "policy.exploration_budget", "in quotes"),
        ('[policy]\nexploration_budget = "0.0000001"', "policy.exploration_budget", "six decimals"),
        ('[policy]\nfree_first = "always"', "policy.free_first", "by_value"),
        ("[holdout]\nshare = 0.1", "holdout.salt", "salt"),
        ('[holdout]\nshare = -0.1\nsalt = "s"', "holdout.share", "0"),
        ('[[caps]]\nname = "a"\nlimit = 1\nwindow_hours = 1\nchannel = "fax"', "caps[0].channel", "'fax'"),
        ('[[caps]]\nname = "a"\nlimit = -1\nwindow_hours = 1', "caps[0].limit", "0"),
        ('[[caps]]\nname = "a"\nlimit = 1\nwindow_hours = 0', "caps[0].window_hours", "greater than 0"),
        ('[[caps]]\nname = "a"\nlimit = 1\nwindow_hours = inf', "caps[0].window_hours", ""),
        (
            '[[caps]]\nname = "a"\nlimit = 1\nwindow_hours = 1\n[[caps]]\nname = "a"\nlimit = 2\nwindow_hours = 2',
            "caps",
            "'a'",
        ),
        (
            '[[caps]]\nname = "a"\nlimit = 0\nwindow_hours = 1\nlast_for_priority = 1',
            "caps[0].last_for_priority",
            "limit is 0",
        ),
        (
            '[[caps]]\nname = "a"\nlimit = 2\nwindow_hours = 1\nlast_for_priority = 101',
            "caps[0].last_for_priority",
            "100",
        ),
        ("[topic_cap]\nlimit = 0", "topic_cap.limit", "1"),
        ("[timing]\nslot_hours = 0.1", "timing.slot_hours", "0.25"),
        ('[harm]\nunsubscribe = "-1"', "harm.unsubscribe", "negative"),
        ('[[prices]]\nchannel = "sms"\nstart_date = 2025-01-01\nprice = "6"', "prices[1]", "same channel"),
        ("[budgets]\nday = 1", "budgets", "tuple"),
        ("[budget]\nday = 1", "budget", "unknown key"),
        (BUDGET.replace('name = "a"', ""), "budgets[0].name", "required"),
        (BUDGET.replace('"a"', '""'), "budgets[0].name", "at least 1"),
        (f"{BUDGET}{BUDGET}", "budgets", "2 budgets are named 'a'"),
        (BUDGET.replace('"1000"', "1000.5"), "budgets[0].amount", "in quotes"),
        (BUDGET.replace('"1000"', '"-1"'), "budgets[0].amount", "negative"),
        (BUDGET.replace('"1000"', '"0"'), "budgets[0].amount", "pause the channel"),
        (BUDGET.replace('amount = "1000"', ""), "budgets[0].amount", "required"),
        (BUDGET.replace('"day"', '"year"'), "budgets[0].period", "'total'"),
        (BUDGET.replace('period = "day"', ""), "budgets[0].period", "required"),
        (f'{BUDGET}channel = "fax"', "budgets[0].channel", "unknown channel 'fax'"),
        (f'{BUDGET}channel = "push"', "budgets[0].channel", "push is free"),
        (f'{BUDGET}campaign = ""', "budgets[0].campaign", "at least 1"),
        (f"{BUDGET}limit = 5", "budgets[0].limit", "unknown key"),
        (f"{BUDGET}start_date = 2026-11-01", "budgets[0].start_date", 'period = "total"'),
        (f"{BUDGET}end_date = 2026-11-01", "budgets[0].end_date", 'period = "total"'),
        (f"{TOTAL}end_date = 2026-11-30", "budgets[0].start_date", "missing"),
        (f"{TOTAL}start_date = 2026-11-01", "budgets[0].end_date", "missing"),
        (f"{TOTAL}start_date = 2026-11-02\nend_date = 2026-11-01", "budgets[0].end_date", "before start_date"),
        (f'{TOTAL}start_date = "soon"\nend_date = 2026-11-01', "budgets[0].start_date", "date"),
        (f"{TOTAL}start_date = 2026-11-01\nend_date = 9999-12-31", "budgets[0].end_date", "2999"),
    ],
)
def test_mistake_in_a_table_is_named_by_its_key(table: str, key: str, says: str) -> None:
    """A file with one broken table is refused by the key in that table."""
    found = mistakes(f"{LINES}\n{table}\n")

    assert key in found
    assert says.lower() in found[key].lower()


def test_budgets_are_for_channels_and_campaigns() -> None:
    """A budget counts its channel and campaign, of which either may be all."""
    text = f'{LINES}{TOTAL}channel = "sms"\ncampaign = "spring"\nstart_date = 2026-11-01\nend_date = 2026-11-01\n'

    narrow, wide = parse_rules(text + BUDGET.replace('"a"', '"b"')).budgets

    assert (narrow.amount, narrow.period, wide.period) == (1_000_000_000, "total", "day")
    assert narrow.counts("sms", "spring")
    assert not narrow.counts("sms", "autumn")
    assert not narrow.counts("viber", "spring")
    assert wide.counts("viber", "autumn")


@pytest.mark.parametrize("name", get_args(PolicyName))
def test_every_policy_may_be_named(name: str) -> None:
    """Each policy can be chosen in the rules, with what exploring may cost."""
    rules = parse_rules(f'{LINES}\n[policy]\nname = "{name}"\nexploration_budget = "500"\n')

    assert (rules.policy.name, rules.policy.exploration_budget) == (name, 500_000_000)


def test_all_mistakes_are_reported_at_once() -> None:
    """Every refused value is named in one answer."""
    text = changed('price = "5.30"', 'price = "-1"').replace("paid = false", "paid = false\ncolour = 1")

    found = mistakes(f'{text}\n[policy]\npaid_optimism = 0\n[harm]\nunsubscribe = "x"')

    assert {"prices[0].price", "channels.push.colour", "policy.paid_optimism", "harm.unsubscribe"} <= set(found)


def test_all_contradictions_are_reported_at_once() -> None:
    """Every key that contradicts another is named in one answer."""
    text = changed('"Europe/Moscow"', '"Mars/Olympus"').replace('["push", "sms"]', '["sms", "push", "fax"]')

    found = mistakes(f"{text}\n[holdout]\nshare = 0.1\n")

    assert {"time_zone", "cascade.order", "cascade.order[2]", "holdout.salt"} <= set(found)


def test_name_changes_with_each_byte() -> None:
    """Two files of one version have different names, so that a decision says which it was made by."""
    one, other = parse_rules(LINES), parse_rules(LINES + "# a remark\n")

    assert one.version == other.version
    assert one.name != other.name
    assert parse_rules(LINES).name == one.name


def test_quiet_hours_of_a_channel_are_its_own_or_the_default_or_none() -> None:
    """A channel follows the default quiet hours unless it has its own, or says that it has none."""
    own = 'quiet_hours = { start = "20:00", end = "10:00" }'
    text = changed("paid = false", f'paid = false\n{own}\n[channels.in_app]\npaid = false\nquiet_hours = "none"')

    rules = parse_rules(f'{text}\n[quiet_hours]\nstart = "22:00"\nend = "08:00"\n')

    starts = {key: quiet and f"{quiet.start:%H:%M}" for key in rules.channels if (quiet := rules.quiet_hours_of(key))}
    assert starts == {"push": "20:00", "sms": "22:00"}
    assert rules.quiet_hours_of("in_app") is None


@given(micros=st.integers(0, 10**15))
def test_money_is_read_to_the_micro(micros: int) -> None:
    """Every amount of whole micros up to the greatest is read exactly."""
    text = changed('"5.30"', f'"{micros // 10**6}.{micros % 10**6:06d}"')

    assert parse_rules(text).prices[0].price == micros


def outcome(text: str) -> Rules | RulesInvalid:
    """Return the rules that a text holds, or its refusal."""
    try:
        return parse_rules(text)
    except RulesInvalid as refused:
        return refused


@given(text=st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever a file holds, it is either read or refused with violations."""
    found = outcome(text)

    assert isinstance(found, Rules) or found.violations


@given(price=st.text(alphabet="0123456789.eE+-_ infNa", max_size=12))
def test_no_price_breaks_the_parser(price: str) -> None:
    """Whatever a price says, it is either an amount from zero to the greatest or refused by its key."""
    found = outcome(changed('"5.30"', f'"{price}"'))

    if isinstance(found, Rules):
        assert 0 <= found.prices[0].price <= 10**15
    else:
        assert [violation.field for violation in found.violations] == ["prices[0].price"]
