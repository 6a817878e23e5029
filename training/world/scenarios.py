"""What happens to the world, and when: each scenario changes it at one stated hour, midnight in UTC."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from models.rules import Price, Rules, parse_rules
from training.world.clock import to_time
from training.world.people import PUSH, VIBER
from training.world.zones import CHANGING_SHARES, HOME_SHARES, next_change_day

ScenarioName = Literal[
    "stationary", "push_outage", "viber_blocked", "sms_price_doubled", "cold_start", "seasonal_shift", "clock_change"
]
SCENARIOS: tuple[ScenarioName, ...] = (
    "stationary",
    "push_outage",
    "viber_blocked",
    "sms_price_doubled",
    "cold_start",
    "seasonal_shift",
    "clock_change",
)
NEVER = 10**9
RULES_FILE = Path(__file__).parent / "rules.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A change of the world. Hours are whole, since START."""

    name: ScenarioName
    change_hour: int = NEVER
    """From when it holds; NEVER where nothing changes."""
    lost_channel: int = -1
    """Channel through which nothing is noticed any more; -1: none."""
    is_reported: bool = False
    """Whether sends through the lost channel are reported as UNDELIVERED; else nobody says so."""
    price_factors: tuple[tuple[str, int], ...] = ()
    """Channels whose every price is multiplied."""
    rhythm_shift: int = 0
    """Hours by which the days of all customers move."""
    is_new_season: bool = False
    """Whether interest moves on from each product to the next, and newsletters gain while carts lose."""
    has_log: bool = True


def make_scenario(name: ScenarioName, change_hour: int) -> Scenario:
    """Return the scenario of that name with its change at that hour."""
    if name == "push_outage":
        return Scenario(name=name, change_hour=change_hour, lost_channel=PUSH)
    if name == "viber_blocked":
        return Scenario(name=name, change_hour=change_hour, lost_channel=VIBER, is_reported=True)
    if name == "sms_price_doubled":
        return Scenario(name=name, change_hour=change_hour, price_factors=(("sms", 2),))
    if name == "seasonal_shift":
        return Scenario(name=name, change_hour=change_hour, rhythm_shift=2, is_new_season=True)
    if name == "clock_change":
        return Scenario(name=name, change_hour=change_hour)
    return Scenario(name=name, has_log=name != "cold_start")


def zone_shares(name: ScenarioName) -> tuple[float, ...]:
    """Return how many customers of a scenario live in which zone."""
    return CHANGING_SHARES if name == "clock_change" else HOME_SHARES


def begin_hour(name: ScenarioName, earliest: int, before_change: int) -> int:
    """Return the hour at which a part of the world begins whose change comes so many hours later; clocks do not change at will."""
    return next_change_day(earliest + before_change) - before_change if name == "clock_change" else earliest


def world_rules() -> Rules:
    """Return the rules of the simulated retailer."""
    return parse_rules(RULES_FILE.read_text(encoding="utf-8"), str(RULES_FILE))


def scenario_rules(rules: Rules, scenario: Scenario) -> Rules:
    """Return rules whose price book has the scenario's new prices, valid from the day of the change."""
    return replace(rules, prices=(*rules.prices, *_new_prices(rules, scenario)))


def scenario_rules_text(scenario: Scenario) -> str:
    """Return the rules file of a scenario, as a server reads it."""
    lines = [RULES_FILE.read_text(encoding="utf-8")]
    for price in _new_prices(world_rules(), scenario):
        lines.append(
            f'\n[[prices]]\nchannel = "{price.channel}"\nstart_date = {price.start_date}\nprice = "{price.price / 1e6:.6f}"\n'
            f'per = "{price.per}"\ncountry = "{price.country}"\ncategory = "{price.category}"\n'
        )
    return "".join(lines)


def _new_prices(rules: Rules, scenario: Scenario) -> tuple[Price, ...]:
    """Return a new line for every line of the price book that holds on the day of the change."""
    factors = dict(scenario.price_factors)
    if not factors:
        return ()
    day = to_time(scenario.change_hour).date()
    latest: dict[tuple[str, str, str], Price] = {}
    for price in sorted(rules.prices, key=lambda p: p.start_date):
        if price.channel in factors and price.start_date <= day:
            latest[price.channel, price.country, price.category] = price
    return tuple(replace(p, start_date=day, price=p.price * factors[p.channel]) for p in latest.values())
