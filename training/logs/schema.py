"""The Parquet schema of a log from anywhere: the columns of its three files. docs/importing.md says how they are used."""

from dataclasses import dataclass
from typing import Literal

from service.gen.channelchoice.v1 import outcome_pb2 as outcome_pb

Kind = Literal["text", "id", "time", "money", "number", "whole", "flag", "channels", "prices"]
FEATURE_PREFIX = "x_"
"""Columns with this prefix are features of the caller's own."""
OUTCOME_TYPES = tuple(
    name.removeprefix("OUTCOME_TYPE_").lower() for name, number in outcome_pb.OutcomeType.items() if number
)
CATEGORIES = ("marketing", "service", "transactional")
ENCODINGS = ("gsm7", "ucs2")
_MOST_MONEY = 1e9
_YEAR_HOURS = 24 * 365.0

TYPES: dict[Kind, str] = {
    "text": "string",
    "id": "string or integer",
    "time": "timestamp with a time zone, such as timestamp[us, tz=UTC]",
    "money": "decimal, double or integer, in units of the currency",
    "number": "double or another number",
    "whole": "integer",
    "flag": "bool",
    "channels": "list<string>",
    "prices": "map<string, double or decimal>, channel to price",
}
"""What may stand in a column of each kind, as refusals and the documentation say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One column. Limits include their ends; of text they are of its length. Where it is not required, null means not known."""

    name: str
    kind: Kind
    meaning: str
    is_required: bool = False
    least: float | None = None
    most: float | None = None
    is_above_least: bool = False
    """Whether `least` itself is refused."""
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The columns of one file."""

    file: str
    fields: tuple[Field, ...]
    has_features: bool = False

    def field(self, name: str) -> Field:
        """Return the column of that name; raises KeyError where there is none."""
        return {field.name: field for field in self.fields}[name]


DECISIONS = Schema(
    file="decisions.parquet",
    has_features=True,
    fields=(
        Field(name="request_id", kind="id", meaning="id of the request", is_required=True, most=128),
        Field(name="decision_id", kind="id", meaning="id of the cascade; default: one of its own", most=36),
        Field(name="step", kind="whole", meaning="step of the cascade; default: 1", least=1, most=100),
        Field(name="customer_id", kind="id", meaning="whom it was for", is_required=True, most=128),
        Field(name="decide_time", kind="time", meaning="when it was decided", is_required=True),
        Field(name="campaign", kind="text", meaning="campaign", is_required=True, most=128),
        Field(name="kind", kind="text", meaning="kind of message", is_required=True, most=64),
        Field(name="category", kind="text", meaning="legal category; default: marketing", allowed=CATEGORIES),
        Field(name="topic", kind="text", meaning="topic of the message", most=128),
        Field(name="offer", kind="text", meaning="offer in the message", most=128),
        Field(name="journey_stage", kind="text", meaning="where the customer was on their way", most=64),
        Field(
            name="order_margin",
            kind="money",
            meaning="margin of one order, as known when it was decided",
            is_required=True,
            least=0,
            most=_MOST_MONEY,
        ),
        Field(
            name="relevance_half_life_hours",
            kind="number",
            meaning="hours in which the message loses half its effect; default: it loses none",
            least=0,
            is_above_least=True,
            most=_YEAR_HOURS,
        ),
        Field(name="earliest_time", kind="time", meaning="not to be sent before; default: decide_time"),
        Field(
            name="expire_time", kind="time", meaning="not to be sent after; default: the rules' lifetime_hours later"
        ),
        Field(name="length_characters", kind="whole", meaning="length of the text; default: 0", least=0, most=10_000),
        Field(name="encoding", kind="text", meaning="encoding of an SMS; default: ucs2", allowed=ENCODINGS),
        Field(name="has_image", kind="flag", meaning="whether the message needs a picture; default: false"),
        Field(name="time_zone", kind="text", meaning="IANA zone of the customer; default: the rules'", most=64),
        Field(name="country", kind="text", meaning="ISO 3166-1 code of the customer; default: the rules'", most=2),
        Field(name="eligible", kind="channels", meaning="channels it could go through", is_required=True),
        Field(
            name="prices",
            kind="prices",
            meaning="price of a send by channel, where it is not the rules' price book's",
            least=0,
            most=_MOST_MONEY,
        ),
        Field(name="channel", kind="text", meaning="channel of the action; none: no send", is_required=True, most=32),
        Field(name="send_time", kind="time", meaning="when it was sent; null exactly where channel is none"),
        Field(
            name="propensity",
            kind="number",
            meaning="P(this channel and send time | what was known), under the policy that acted",
            is_required=True,
            least=0,
            is_above_least=True,
            most=1,
        ),
        Field(
            name="price",
            kind="money",
            meaning="what the send cost; default: prices, else the rules' price book",
            least=0,
            most=_MOST_MONEY,
        ),
        Field(name="policy", kind="text", meaning="name of the policy that acted; default: imported", most=64),
        Field(
            name="trainable",
            kind="flag",
            meaning="whether training may learn from it; default: where any channel was eligible",
        ),
    ),
)
_OF_THE_ACTION = ("decision_id", "step", "channel", "send_time", "propensity", "price", "policy", "trainable")
REQUESTS = Schema(
    file="requests.parquet",
    has_features=True,
    fields=tuple(field for field in DECISIONS.fields if field.name not in _OF_THE_ACTION),
)
"""Messages that are yet to be decided: the columns of decisions without those of what was done."""
OUTCOMES = Schema(
    file="outcomes.parquet",
    fields=(
        Field(name="event_id", kind="id", meaning="id of the event; default: made of what it is", most=128),
        Field(name="decision_id", kind="id", meaning="the decision it follows, by decision_id", most=36),
        Field(name="request_id", kind="id", meaning="the decision it follows, by request_id", most=128),
        Field(
            name="step", kind="whole", meaning="step it follows; default: the latest at occur_time", least=1, most=100
        ),
        Field(name="customer_id", kind="id", meaning="whose it is, where it follows no decision", most=128),
        Field(name="type", kind="text", meaning="what happened", is_required=True, allowed=OUTCOME_TYPES),
        Field(name="occur_time", kind="time", meaning="when it happened", is_required=True),
        Field(name="receive_time", kind="time", meaning="when it became known; default: occur_time"),
        Field(
            name="value",
            kind="money",
            meaning="margin of an order; default: the message's order_margin",
            least=0,
            most=_MOST_MONEY,
        ),
        Field(name="cost", kind="money", meaning="what a send really cost", least=0, most=_MOST_MONEY),
        Field(name="machine_generated", kind="flag", meaning="made by a machine, such as a mail proxy; default: false"),
        Field(name="csat", kind="whole", meaning="satisfaction in a survey", least=1, most=5),
        Field(name="nps", kind="whole", meaning="likelihood to recommend in a survey", least=0, most=10),
    ),
)
ACTIVITY = Schema(
    file="activity.parquet",
    fields=(
        Field(name="customer_id", kind="id", meaning="whose visit", is_required=True, most=128),
        Field(name="occur_time", kind="time", meaning="when it began", is_required=True),
    ),
)
