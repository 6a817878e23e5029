"""The load: customers with a history, rules whose grid gives as many candidates as wanted, and a bundle of 300 trees x 31 leaves.

Time stands still at noon in Moscow and moves only from one phase to the next, by 20 days. Each customer gets one live message a
phase, so that at any moment each has had three in the 60 days that the service remembers, and no cap is ever near.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lightgbm as lgb
import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from models.actions import list_actions
from models.booster import Booster
from models.bundle import RESPONSE, Description, write_bundle
from models.context import Context
from models.eligibility import EligibleChannel, find_eligible
from models.features import CUSTOM_PREFIX, FEATURES, NO_SEND, Column, Encoder, Feature
from models.record import context_from_json
from models.rules import Rules, read_rules
from service.gen.channelchoice.v1.channel_choice_service_pb2 import ChooseChannelRequest
from service.gen.channelchoice.v1.customer_pb2 import CONSENT_STATE_GRANTED, CustomerRef
from service.gen.channelchoice.v1.decision_pb2 import DecisionMode, DecisionView
from service.gen.channelchoice.v1.message_pb2 import MESSAGE_CATEGORY_MARKETING, ChannelOption, Content, Message
from service.gen.channelchoice.v1.money_pb2 import Money
from service.store.store import Store

FloatArray = NDArray[np.float64]
TREES, LEAVES, COLUMNS = 300, 31, 40
_NOON = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
_PHASE = timedelta(days=20)
_TRAINING_ROWS = 20_000
_CUSTOM = tuple(f"behaviour_{number:02}" for number in range(COLUMNS - len(FEATURES)))
_ACTION_COLUMNS = [place for place, f in enumerate(FEATURES) if f.of_context is None and f.name != "channel"]
_CHANNELS = ("in_app", "push", "email", "telegram", "web_push", "sms", "viber", "vk")
_PRICES = {"sms": "5.30", "viber": "4.10", "vk": "2.40"}
_CATEGORIES = {
    "channel": (NO_SEND, *_CHANNELS),
    "message_kind": ("abandoned_cart", "newsletter"),
    "category": ("marketing", "service"),
    "offer": ("delivery", "ten_percent"),
    "journey_stage": ("active", "lapsing", "new"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One set of rules with a database and a bundle of its own: `channels` with a slot each `slot_hours` hours."""

    name: str
    folder: Path
    channels: tuple[str, ...]
    slot_hours: float

    @property
    def rules_file(self) -> Path:
        return self.folder / "rules.toml"

    @property
    def database(self) -> Path:
        return self.folder / "decisions.db"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    def contexts(self, request_ids: Iterable[str]) -> list[Context]:
        """Return the contexts that the service decided these requests from, as its log has them."""
        store = Store(f"sqlite:///{self.database}")
        try:
            rows = store.read(lambda reader: reader.find_requests(request_ids))
        finally:
            store.close()
        return [context_from_json(row.context) for row in rows if row is not None]

    def matrices(self, contexts: Sequence[Context]) -> list[FloatArray]:
        """Return the rows that each of these decisions scores."""
        rules, encoder = self.rules(), Encoder(columns())
        return [encoder.encode_actions(context, list_actions(_considered(context, rules))) for context in contexts]

    def rules(self) -> Rules:
        return read_rules(self.rules_file)

    def booster(self) -> Booster:
        return Booster((self.bundle / RESPONSE).read_text())


def _considered(context: Context, rules: Rules) -> tuple[EligibleChannel, ...]:
    found = find_eligible(context, rules)
    return (*found.eligible, *found.waiting)


def make_worlds(folder: Path) -> tuple[World, World]:
    """Lay out the worlds of about 40 and about 240 candidates."""
    small = World(name="40", folder=folder / "40", channels=_CHANNELS[:6], slot_hours=2)
    large = World(name="240", folder=folder / "240", channels=_CHANNELS, slot_hours=0.28)
    model = _train()
    golden = golden_rows(np.random.default_rng(1), 64)
    description = Description(
        columns=columns(),
        calibration_slope=1.0,
        calibration_intercept=0.0,
        unsubscribe_rates=dict.fromkeys(_CHANNELS, 0.001),
    )
    for world in (small, large):
        world.folder.mkdir()
        world.rules_file.write_text(_rules_text(world))
        write_bundle(world.bundle, "benchmark", description, model, golden)
    return small, large


def make_request(
    world: World,
    customer: int,
    phase: int,
    request_id: str,
    *,
    mode: "DecisionMode.ValueType",
    view: "DecisionView.ValueType",
) -> ChooseChannelRequest:
    """Return a request about a message to one of the customers; all but mode, view and id follow from customer and phase."""
    random = np.random.default_rng(customer)
    ref = CustomerRef(customer_id=f"customer-{customer}", time_zone="Europe/Moscow", country="RU")
    for name, value in zip(_CUSTOM, random.normal(size=len(_CUSTOM)), strict=True):
        ref.features[name].number = value
    earliest = Timestamp()
    earliest.FromDatetime(_NOON + phase * _PHASE)
    return ChooseChannelRequest(
        request_id=request_id,
        customer=ref,
        message=Message(
            campaign="spring",
            kind="abandoned_cart",
            topic="cart",
            offer="delivery",
            category=MESSAGE_CATEGORY_MARKETING,
            journey_stage="active",
            order_margin=Money(micros=900_000_000, currency="RUB"),
            content=Content(text="Ваша корзина ждёт: бесплатная доставка до пятницы."),
            earliest_time=earliest,
        ),
        channels=[ChannelOption(channel=key, consent=CONSENT_STATE_GRANTED) for key in world.channels],
        mode=mode,
        view=view,
    )


def columns() -> tuple[Column, ...]:
    built_in = [Column(name=f.name, kind=f.kind, categories=_categories(f)) for f in FEATURES]
    return (*built_in, *(Column(name=CUSTOM_PREFIX + name, kind="number") for name in _CUSTOM))


def _categories(feature: Feature) -> tuple[str, ...]:
    return _CATEGORIES.get(feature.name, ("one", "two")) if feature.kind == "category" else ()


def golden_rows(random: np.random.Generator, count: int) -> FloatArray:
    """Return rows that a model can be grown on, shape (count, COLUMNS); a row of no send has no features of an action."""
    drawn = [
        random.integers(0, len(column.categories), count)
        if column.kind == "category"
        else random.normal(size=count)
        if column.name.startswith(CUSTOM_PREFIX)
        else random.uniform(0, 24, count)
        for column in columns()
    ]
    rows = np.column_stack(drawn).astype(np.float64)
    rows[np.ix_(rows[:, 0] == 0, _ACTION_COLUMNS)] = np.nan
    return rows


def _train() -> str:
    """Grow a model on a response that every column bears on, and that any send makes likelier."""
    random = np.random.default_rng(0)
    rows = golden_rows(random, _TRAINING_ROWS)
    weights = random.normal(scale=0.2, size=COLUMNS)
    weights[_ACTION_COLUMNS] /= 3
    centred = np.nan_to_num((rows - np.nanmean(rows, axis=0)) / np.nanstd(rows, axis=0))
    logit = centred @ weights + np.where(rows[:, 0] > 0, 0.0, -4.0)
    response = random.random(_TRAINING_ROWS) < 1 / (1 + np.exp(-logit))
    categorical = [place for place, column in enumerate(columns()) if column.kind == "category"]
    parameters = {"objective": "binary", "num_leaves": LEAVES, "seed": 0, "num_threads": 2, "verbosity": -1}
    data = lgb.Dataset(rows, label=response, categorical_feature=categorical, params={"verbosity": -1})
    return lgb.train(parameters, data, num_boost_round=TREES).model_to_string()


def _rules_text(world: World) -> str:
    channels = [
        f"[channels.{key}]\npaid = {str(key in _PRICES).lower()}\n" + 'quiet_hours = "none"\n' * (key == "in_app")
        for key in world.channels
    ]
    prices = [
        f'[[prices]]\nchannel = "{key}"\nstart_date = 2025-01-01\nprice = "{price}"\n'
        for key, price in _PRICES.items()
        if key in world.channels
    ]
    order = ", ".join(f'"{key}"' for key in world.channels)
    return "\n".join(
        [_RULES, *channels, *prices, f"[cascade]\norder = [{order}]", f"[timing]\nslot_hours = {world.slot_hours}"]
    )


_RULES = """
version = "benchmark"
currency = "RUB"
country = "RU"
time_zone = "Europe/Moscow"

[quiet_hours]
start = "22:00"
end = "08:00"

[[caps]]
name = "day"
limit = 2
window_hours = 24

[[caps]]
name = "week"
limit = 6
window_hours = 168

[topic_cap]
limit = 1
window_hours = 72

[policy]
free_first = "by_value"
paid_optimism = 1000   # every candidate stays in the answer

[harm]
unsubscribe = "120.00"
"""
