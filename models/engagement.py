"""What a customer has engaged with: messages sent, and seen or clicked, channel by channel."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from models.context import Contact

_PRIOR_SENDS = 10.0
"""Messages that a customer's rate over all channels counts for, beside those that were sent through one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engagement:
    """Messages sent to one customer through one channel, and those of them that were seen or clicked."""

    sent: int
    engaged: int


def count_engagement(contacts: Iterable[Contact], now: datetime) -> dict[str, Engagement]:
    """Count the messages that were sent by now, by channel; one that was not sent yet says nothing."""
    counts: dict[str, Engagement] = {}
    for contact in contacts:
        if contact.start <= now:
            known = counts.get(contact.channel, Engagement(sent=0, engaged=0))
            is_engaged = contact.seen_time is not None or contact.click_time is not None
            counts[contact.channel] = Engagement(sent=known.sent + 1, engaged=known.engaged + is_engaged)
    return counts


def engagement_rates(counts: Mapping[str, Engagement], channels: Iterable[str]) -> dict[str, float]:
    """Return how often messages through each channel are engaged with: (e + W m) / (s + W), in [0, 1].

    Of s messages e were engaged with; m is the rate over all channels, 0 where nothing was sent, and W = 10 messages its weight.
    """
    sent = sum(count.sent for count in counts.values())
    mean = sum(count.engaged for count in counts.values()) / sent if sent else 0.0
    rates: dict[str, float] = {}
    for channel in channels:
        count = counts.get(channel, Engagement(sent=0, engaged=0))
        rates[channel] = (count.engaged + _PRIOR_SENDS * mean) / (count.sent + _PRIOR_SENDS)
    return rates
