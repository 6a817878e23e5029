"""A small log whose channels were drawn evenly, with clicks and orders by a known truth, to judge policies by.

Push and email are clicked by 30 % and 10 %, sms by 20 %. Of clicks half lead to an order of 900 roubles on top of the 4 % who order anyway. So push
earns 0.3 x 0.5 x 0.96 x 900 a message, and sms costs 5.30.
"""

from datetime import timedelta

import numpy as np

from models.features import NO_SEND
from tests.training.examples import DAY, HOUR, NOW, UNIT, logged, order, write
from training.journal import LoggedDecision, LoggedOutcome

CLICKS = {"push": 0.3, "email": 0.1, "sms": 0.2}
CHANNELS = (NO_SEND, *CLICKS)
BUYS, ANYWAY, MARGIN = 0.5, 0.04, 900.0
DECISIONS = 2400


def caused(channel: str) -> float:
    """Margin that a send through a channel causes, in roubles."""
    return CLICKS[channel] * BUYS * (1 - ANYWAY) * MARGIN


def random_decisions(count: int = DECISIONS, seed: int = 0) -> list[LoggedDecision]:
    """Decisions a quarter of an hour apart, each of a customer of their own, channels drawn evenly."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        moment = NOW + i % 8 * HOUR / 4 + i // 8 * DAY
        channel = CHANNELS[int(rng.integers(len(CHANNELS)))]
        is_clicked = channel != NO_SEND and rng.random() < CLICKS[channel]
        outcomes: list[LoggedOutcome] = []
        if is_clicked:
            outcomes += [
                LoggedOutcome(type=kind, occur_time=moment + wait)
                for kind, wait in (("seen", HOUR / 2), ("clicked", HOUR))
            ]
        elif channel != NO_SEND and rng.random() < 0.4:
            outcomes.append(LoggedOutcome(type="seen", occur_time=moment + 2 * HOUR))
        if rng.random() < ANYWAY or (is_clicked and rng.random() < BUYS):
            wait = timedelta(hours=2 + 40 * rng.random())
            outcomes.append(order(moment + wait, round(MARGIN * UNIT)))
        found.append(
            logged(
                f"r-{i}",
                moment=moment,
                channel=channel,
                customer=f"c-{i}",
                propensity=1 / len(CHANNELS),
                price_micros=5_300_000 if channel == "sms" else 0,
                features={"visits": float(rng.integers(5))},
                outcomes=outcomes,
            )
        )
    return found


def write_random(url: str, count: int = DECISIONS, seed: int = 0) -> None:
    """Write the log, closed by a decision far later."""
    decisions = random_decisions(count, seed)
    late = decisions[-1].context.decide_time + 30 * DAY
    write(url, [*decisions, logged("closing", moment=late, customer="nobody")])
