"""The truth: how customers notice, click, order and unsubscribe, and what any cascade is exactly expected to earn.

One message to one customer has a hidden intent z in {none, mild, keen} with chances pi_z that depend on latent interest. A send a, made at
hour s_a through channel c, is delivered with chance d and then noticed in cell g >= s_a with hazard 1 - exp(-lambda_a(z, g)),

    lambda_a(z, g) = notice_c x attention_pc x rhythm_pc(hour of week) x keep_c(g - s_a) x subject_c(kind, z) x tiredness,

until the deadline. When noticed, it is clicked with chance q_a(z, g), else the customer unsubscribes with chance r_a(z), else nothing
follows. Given the customer, z and the hours of sending, sends are independent of each other up to the first of these reactions, which ends the
message. With S_a(z, g) = P(no reaction to a before cell g), the chance that a's click in cell g is the first reaction is
click_a(z, g) x product of S_b(z, g) over the other sends b; within a cell the earlier step is looked at first, so that its S enters as of the
cell's end for later steps. A click leads to an order with chance o_a(z, g), which falls by half with each half-life of the message.

Customers also order without the message: with chance b_z one organic order lies ahead, in cell g with chance f0(g). It ends the message
too, as a stop on order does. A click of a customer with an organic order ahead brings that order forward and causes none. So a
cascade of sends a_1 ... a_k at hours s_1 < ... < s_k, each made only if nothing has ended the message before, is expected to earn

    sum_z pi_z [ margin x (1 - b_z) x sum_a sum_g click_a o_a prod S
                 - harm x sum_a sum_g unsubscribe_a (1 - b_z F0(g)) prod S
                 - sum_k price_k x prod_{j<k} S_j(s_k) x (1 - b_z F0(s_k)) ],     F0(g) = P(organic before cell g | organic),

which is what `Curves` and `expected` compute, in sums over one-hour cells, exact but for rounding. What being ignored says about z is
in the product of S before the sum over z; `condition` does the same for a history in which some sends were seen.

Of the orders, caused or not, a share rho x factor of the product comes back 5 to 14 days later, so that a caused order earns
margin x (1 - rho x factor). No order comes back by default.

Service and transactional messages are owed. They cause no order; the customer who is told of a delivery g hours late has been harmed by
L x g / lifetime, who is never told by L, so that a send is worth the harm that it spares: noticing ends such a message (q = 1, r = 0), one
intent has all the weight, and L x (1 - g / lifetime) stands where margin x o_a stands above, on the side of harm. They tire like others.

None of this is additive or multiplicative in what the service is told: click chances are logistic in intent, stage x kind, channel x
kind, deals and age of the message together; attention saturates; SMS follows the rhythm by its square root; some read mail at weekends alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.world import calibration
from training.world.clock import WEEK
from training.world.messages import IS_OWED, MAX_LIFETIME, NEWSLETTER, WELCOME, Messages
from training.world.people import (
    CHANNELS,
    EMAIL,
    IN_APP,
    LOST_CAUSE,
    PRODUCTS,
    PUSH,
    SMS,
    SURE_THING,
    VIBER,
    WHATSAPP,
    Population,
)
from training.world.scenarios import Scenario
from training.world.zones import week_hours

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

INTENTS = 3
NONE, MILD, KEEN = range(INTENTS)
ORDER_DELAY_HOURS = 24
"""The longest time from a click to its order; with the longest lifetime all effects lie within 72 hours."""
ORGANIC_HOURS = 72
"""Within this time of its arrival an organic order competes with a message."""
_DELIVERY = np.array([1.0, 0.94, calibration.MAIL_DELIVERY, 0.93, 0.97, 0.95])
_TIRE_HOURS = 72.0
OWN_STEP_TIREDNESS = 0.5
"""What each earlier step of the same cascade adds to tiredness; a contact of another message adds 1, fading with 72 hours."""
_NOTICE_FATIGUE, _ANNOYANCE_FATIGUE = 0.25, 0.7
_INTENT_CLICK = np.array([-3.2, -0.3, 1.3])
_INTENT_ORDER = np.array([-2.0, -0.2, 0.8])
_INTENT_SUBJECT = np.array([0.6, 1.0, 1.5])
_INTENT_ORGANIC = np.array([0.4, 1.0, 2.0])
_INTENT_ANNOYANCE = np.array([1.3, 0.8, 0.5])
_KEEN_OF_KIND = np.array([0.3, -0.1, -0.2, -1.1, -0.7, -0.6])
_NONE_OF_KIND = np.array([-0.5, -0.1, 0.0, 0.7, 0.4, 0.0])
_ORGANIC_OF_KIND = np.array([0.045, 0.022, 0.025, 0.009, 0.006, 0.0008])
_ANNOYED_OF_KIND = calibration.UNSUBSCRIBE_OF_KIND
# Rows: in_app, push, email, viber, sms, whatsapp; columns: the kinds of messages. Carts do well where the phone is at hand, news in mail.
_CHANNEL_KIND = np.array(
    [
        [0.3, 0.5, 0.2, 0.0, 0.6, 0.4],
        [0.5, 0.1, 0.7, -0.5, -0.3, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.2, 0.0, 0.5, 0.3, 0.0, 0.0],
        [0.4, -0.4, 0.3, -0.6, -0.9, -0.5],
        [0.5, 0.2, 0.1, -0.3, 0.2, 0.3],
    ]
)
# Rows: new, active, loyal, lapsing.
_STAGE_KIND = np.array(
    [
        [-0.3, 0.1, 0.2, -0.2, -0.6, 0.5],
        [0.1, 0.1, 0.0, 0.0, 0.2, 0.0],
        [0.4, 0.0, -0.2, 0.3, 0.6, -0.5],
        [-0.4, -0.5, 0.6, 0.1, -0.4, 0.0],
    ]
)
# Rows: the channels; columns: the stages. The new do not buy from a text message, the loyal do in the app, the lapsing need to be called back.
_CHANNEL_STAGE_ORDER = np.array(
    [
        [-0.2, 0.1, 0.5, -0.4],
        [-0.1, 0.0, 0.3, -0.2],
        [0.2, 0.0, 0.0, 0.0],
        [-0.2, 0.1, 0.1, 0.4],
        [-0.9, 0.0, 0.0, 0.5],
        [-0.3, 0.2, 0.0, 0.3],
    ]
)
_LATE_HARM = np.array([0, 0, 0, 0, 0, 0, 30.0, 60.0])
"""L: harm in roubles of never telling a customer what is owed, by kind."""
RETURN_FACTORS = np.array([0.7, 0.5, 2.0, 0.8])
"""How much oftener than on average an order of a product comes back."""
_IMAGE_CLICK = np.array([0.3, 0.2, 0.2, 0.4, 0.0, 0.4])


def _keep() -> FloatArray:
    """Return how much a message of each channel is still seen by hours since it was sent, (C, 48)."""
    age = np.arange(MAX_LIFETIME)
    kept = np.empty((len(CHANNELS), MAX_LIFETIME))
    kept[IN_APP] = np.exp(-age / 30)
    kept[PUSH] = np.exp(-age / 2.5) + 0.03
    kept[EMAIL] = (1 + age / 6) ** -1.3
    kept[VIBER] = 0.8 * np.exp(-age / 3) + 0.2 * np.exp(-age / 14)
    kept[SMS] = 0.85 * np.exp(-age / 1.5) + 0.15 * np.exp(-age / 12)
    kept[WHATSAPP] = 0.7 * np.exp(-age / 4) + 0.3 * np.exp(-age / 20)
    return np.asarray(kept, dtype=np.float64)


KEEP = _keep()
_ORGANIC_PMF = np.exp(-np.arange(ORGANIC_HOURS) / 24)
_ORGANIC_PMF = _ORGANIC_PMF / _ORGANIC_PMF.sum()
ORGANIC_BEFORE = np.concatenate([[0.0], np.cumsum(_ORGANIC_PMF)])
"""F0(g) for g = 0 to 72 hours after arrival."""


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-x)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One send of a message. `tiredness` counts contacts as of when the send was decided."""

    channel: int
    hour: int
    tiredness: float
    price: float
    """Roubles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """A send with what is known of it: whether it was not delivered, and in which cell it was seen without any reaction."""

    send: Send
    is_undelivered: bool = False
    seen_hour: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a cascade is expected to do beyond no send at all. Money in roubles."""

    caused_margin: float = 0.0
    spend: float = 0.0
    harm: float = 0.0
    caused_orders: float = 0.0
    unsubscribes: float = 0.0

    @property
    def net(self) -> float:
        return self.caused_margin - self.spend - self.harm

    def __add__(self, other: "Expected") -> "Expected":
        return Expected(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    def __sub__(self, other: "Expected") -> "Expected":
        return Expected(**{name: getattr(self, name) - getattr(other, name) for name in self.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One message with the latent quantities that all of its sends share. G is the lifetime in hours."""

    index: int
    person: int
    arrive: int
    lifetime: int
    margin: float
    prior: FloatArray
    """pi_z, (3,)."""
    organic: FloatArray
    """b_z, (3,)."""
    is_owed: bool = False
    """Whether it is a service or transactional message; then `margin` is the harm of never telling it."""
    returned: float = 0.0
    """P(an order comes back)."""

    @property
    def worth(self) -> float:
        """What an order is expected to earn once returns are taken off; of an owed message, what telling it at once spares."""
        return self.margin * (1 - self.returned)

    @property
    def not_yet_organic(self) -> FloatArray:
        """1 - b_z F0(g), shape (3, G + 1)."""
        return np.asarray(1 - self.organic[:, None] * ORGANIC_BEFORE[: self.lifetime + 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Sends of one message, each as if alone, from the message's arrival to its deadline: arrays of shape (A, 3, G)."""

    noticed: FloatArray
    """P(delivered and noticed in cell g)."""
    q: FloatArray
    """P(click | noticed in cell g)."""
    r: FloatArray
    """P(unsubscribe | noticed in cell g)."""
    order: FloatArray
    """P(order | click in cell g, none anyway)."""
    delivered: FloatArray
    """P(delivered), (A,)."""

    @staticmethod
    def join(parts: "Sequence[Curves]") -> "Curves":
        """Return the sends of several as one."""
        return Curves(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in Curves.__slots__})

    @property
    def click(self) -> FloatArray:
        return self.noticed * self.q

    @property
    def unsubscribe(self) -> FloatArray:
        return self.noticed * self.r


@dataclass(frozen=True, slots=True)
class Truth:
    """The world's law for a population, a stream of messages and a scenario; `harm` is what an unsubscribe costs, in roubles."""

    people: Population
    messages: Messages
    scenario: Scenario
    harm: float
    return_share: float = 0.0
    """Of all orders, 0 to 0.45."""

    def case(self, index: int) -> Case:
        """Return what all sends of a message share."""
        people, messages = self.people, self.messages
        person, kind = int(messages.person[index]), int(messages.kind[index])
        if IS_OWED[kind]:
            return Case(
                index=index,
                person=person,
                arrive=int(messages.arrive[index]),
                lifetime=int(messages.lifetime[index]),
                margin=float(_LATE_HARM[kind]),
                prior=np.array([0.0, 1.0, 0.0]),
                organic=np.zeros(INTENTS),
                is_owed=True,
            )
        interest = self._interest(index)
        keen = _sigmoid(np.array(-1.9 + 0.9 * interest + _KEEN_OF_KIND[kind]))
        none = _sigmoid(np.array(-0.1 - 0.8 * interest + _NONE_OF_KIND[kind]))
        prior = np.array([(1 - keen) * none, (1 - keen) * (1 - none), keen])
        organic = _ORGANIC_OF_KIND[kind] * people.organic[person] * _INTENT_ORGANIC
        return Case(
            index=index,
            person=person,
            arrive=int(messages.arrive[index]),
            lifetime=int(messages.lifetime[index]),
            margin=float(messages.margin[index]),
            prior=prior,
            organic=np.minimum(organic, 0.7),
            returned=self.return_share * float(RETURN_FACTORS[messages.product[index]]),
        )

    def curves(self, case: Case, channel: IntArray, hour: IntArray, tiredness: FloatArray) -> Curves:
        """Return the curves of sends: channels, hours since START and tiredness, each of shape (A,)."""
        people, messages, index, person = self.people, self.messages, case.index, case.person
        kind, stage = int(messages.kind[index]), int(people.stage[person])
        cells = case.arrive + np.arange(case.lifetime)
        noticed, delivered = self._noticed(case, kind, channel, hour, tiredness, cells)
        if case.is_owed:
            in_time = np.broadcast_to(1 - np.arange(case.lifetime) / case.lifetime, noticed.shape)
            return Curves(
                noticed=noticed, q=np.ones_like(noticed), r=np.zeros_like(noticed), order=in_time, delivered=delivered
            )
        relevance = np.exp2(-np.arange(case.lifetime) / messages.half_life[index])
        interest = self._interest(index)
        lift = (
            calibration.CLICK_OF_KIND[kind]
            + np.where(channel == PUSH, calibration.PUSH_CLICK, 0.0)
            + _CHANNEL_KIND[channel, kind]
            + _STAGE_KIND[stage, kind]
            + 0.5 * interest
            + (0.6 * people.deal_seeking[person] if messages.is_deal[index] else -0.2 * people.deal_seeking[person])
            + (_IMAGE_CLICK[channel] if messages.has_image[index] else 0.0)
            + self._season_of_kind(kind, int(cells[0]))
        )
        click = 0.92 * _sigmoid(np.asarray(lift)[:, None] + _INTENT_CLICK)
        is_lost = people.kind[person] == LOST_CAUSE
        q = click[:, :, None] * (0.3 + 0.7 * relevance) * (0.3 if is_lost else 1.0)
        buying = (
            calibration.ORDER_OF_KIND[kind]
            + _CHANNEL_STAGE_ORDER[channel, stage]
            + 0.4 * interest
            + (0.3 * people.deal_seeking[person] if messages.is_deal[index] else 0.0)
        )
        order = 0.85 * _sigmoid(np.asarray(buying)[:, None] + _INTENT_ORDER)
        order = order * {LOST_CAUSE: 0.01, SURE_THING: 0.01}.get(int(people.kind[person]), 1.0)
        annoyed = calibration.UNSUBSCRIBE[channel] * _ANNOYED_OF_KIND[kind] * people.annoyance[person]
        annoyed = (annoyed * (1 + _ANNOYANCE_FATIGUE * tiredness))[:, None] * _INTENT_ANNOYANCE
        r = (1 - q) * np.minimum(annoyed, 0.5)[:, :, None]
        return Curves(noticed=noticed, q=q, r=r, order=order[:, :, None] * relevance, delivered=delivered)

    def curves_of(self, case: Case, sends: Sequence[Send]) -> Curves:
        """Return the curves of sends."""
        return self.curves(
            case,
            np.array([s.channel for s in sends]),
            np.array([s.hour for s in sends]),
            np.array([s.tiredness for s in sends]),
        )

    def expected(
        self,
        case: Case,
        sends: Sequence[Send],
        history: Sequence[Happened] = (),
        now: int = 0,
        curves: Curves | None = None,
    ) -> Expected:
        """Return what sends still to be made are expected to do, with what comes of those that were made.

        Parameters
        ----------
        sends : in order of their hours, each made only if nothing has ended the message before.
        history : sends made before `now` to which there was no reaction yet; without it `now` is not used.
        curves : those of history and sends, in this order, where they are known already.
        """
        everything = [*(h.send for h in history), *sends]
        if not everything:
            return Expected()
        curves = curves or self.curves_of(case, everything)
        weight, noticed = condition(case, curves, history, now)
        click, unsubscribe = noticed * curves.q, noticed * curves.r
        after = 1 - np.cumsum(click + unsubscribe, axis=2)
        before = np.ones_like(after)
        before[:, :, 1:] = after[:, :, :-1]
        pending = case.not_yet_organic
        count, cells = len(everything), case.lifetime
        unsubscribe = unsubscribe * pending[:, :cells]
        bought = click * curves.order * (1 - case.organic)[:, None]
        orders = harm = spend = 0.0
        for k in range(count):
            others = weight[:, None]
            for j in range(count):
                if j != k:
                    others = others * (after[j] if j < k else before[j])
            orders += float((bought[k] * others).sum())
            harm += float((unsubscribe[k] * others).sum())
            start = everything[k].hour - case.arrive
            if k >= len(history) and start < cells:
                made = np.prod(before[:k, :, start], axis=0) * pending[:, start]
                spend += everything[k].price * float(weight @ made)
        if case.is_owed:
            return Expected(spend=spend, harm=-orders * case.worth)
        return Expected(
            caused_margin=orders * case.worth,
            spend=spend,
            harm=harm * self.harm,
            caused_orders=orders,
            unsubscribes=harm,
        )

    def _interest(self, index: int) -> float:
        """Return the latent interest in the message's product; a new season moves it to the next product."""
        messages = self.messages
        product = int(messages.product[index])
        if self.scenario.is_new_season and messages.arrive[index] >= self.scenario.change_hour:
            product = (product + 1) % len(PRODUCTS)
        return float(self.people.interest[messages.person[index], product])

    def _season_of_kind(self, kind: int, arrive: int) -> float:
        if not self.scenario.is_new_season or arrive < self.scenario.change_hour:
            return 0.0
        return {NEWSLETTER: 0.8, WELCOME: 0.0}.get(kind, -0.5)

    def rhythm(self, person: int, channel: IntArray, cells: IntArray) -> FloatArray:
        """Return a customer's attention to channels in cells (hours since START), shape (A, G)."""
        people = self.people
        shift = np.where(cells >= self.scenario.change_hour, self.scenario.rhythm_shift, 0)
        clock = week_hours(int(people.zone[person]), cells)
        own = people.rhythm[person, (clock - shift) % WEEK]
        found = np.tile(own, (len(channel), 1))
        found[channel == SMS] = np.sqrt(own)
        found[channel == IN_APP] = own**1.3
        mail = own * np.where((clock % 24 >= 7) & (clock % 24 < 12), 1.3, 0.9)
        if people.is_weekend_mail[person]:
            mail = mail * np.where(clock >= 5 * 24, 2.6, 0.04)
        found[channel == EMAIL] = mail
        return found

    def _noticed(
        self, case: Case, kind: int, channel: IntArray, hour: IntArray, tiredness: FloatArray, cells: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return P(noticed in cell), (A, 3, G), and P(delivered), (A,)."""
        people, person, scenario = self.people, case.person, self.scenario
        age = cells[None, :] - hour[:, None]
        kept = np.where(age >= 0, KEEP[channel[:, None], age.clip(0)], 0.0)
        is_lost = (channel[:, None] == scenario.lost_channel) & (cells[None, :] >= scenario.change_hour)
        scale = calibration.NOTICE[channel] * people.attention[person, channel] / (1 + _NOTICE_FATIGUE * tiredness)
        base = np.where(is_lost, 0.0, kept) * scale[:, None] * self.rhythm(person, channel, cells)
        subject = np.ones((len(channel), INTENTS))
        subject[channel == EMAIL] = _INTENT_SUBJECT * (1.0 if case.is_owed else calibration.MAIL_SUBJECT[kind])
        subject[channel == PUSH] = np.sqrt(_INTENT_SUBJECT)
        total = np.cumsum(base, axis=1)[:, None, :] * subject[:, :, None]
        unseen = np.exp(-total)
        delivered = _DELIVERY[channel] * people.deliverable[person, channel]
        if scenario.is_reported:
            delivered = np.where((channel == scenario.lost_channel) & (hour >= scenario.change_hour), 0.0, delivered)
        noticed = -np.diff(unseen, axis=2, prepend=1.0) * delivered[:, None, None]
        return noticed, delivered


def condition(case: Case, curves: Curves, history: Sequence[Happened], now: int) -> tuple[FloatArray, FloatArray]:
    """Return what a history without any reaction says: weights of the intents, (3,), and P(noticed in cell) from now on.

    The weights are P(z | history), divided by P(no organic order before now | z), so that the factors (1 - b_z) and
    1 - b_z F0(g) of the formula become conditional as well. The first rows of the curves are those of the history.
    """
    noticed = curves.noticed
    if not history:
        return case.prior, noticed
    noticed = noticed.copy()
    cell = min(now - case.arrive, case.lifetime)
    weight = case.prior * case.not_yet_organic[:, cell]
    for row, past in enumerate(history):
        if past.is_undelivered:
            noticed[row] = 0.0
        elif past.seen_hour is not None:
            seen = past.seen_hour - case.arrive
            weight = weight * noticed[row, :, seen] * (1 - curves.q[row, :, seen] - curves.r[row, :, seen])
            noticed[row] = 0.0
        else:
            unseen = curves.delivered[row] - noticed[row, :, :cell].sum(axis=1)
            weight = weight * unseen
            noticed[row, :, :cell] = 0.0
            noticed[row] /= np.maximum(unseen, 1e-300)[:, None]
    return weight / weight.sum() / case.not_yet_organic[:, cell], noticed


def tiredness(contact_hours: FloatArray, hours: FloatArray) -> FloatArray:
    """Return how tired of contacts a customer is at hours, (A,): each earlier one counts exp(-age / 72 h)."""
    age = hours[:, None] - contact_hours[None, :]
    return np.asarray(np.where(age >= 0, np.exp(-np.maximum(age, 0) / _TIRE_HOURS), 0.0).sum(axis=1))
