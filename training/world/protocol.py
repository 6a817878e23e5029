"""What the world and a policy say to each other, and what a run of one came to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from models.context import Contact, Context
from models.decide import Distribution
from models.features import Action
from training.world.truth import Expected, Happened

FloatArray = NDArray[np.float64]
OutcomeType = Literal[
    "sent", "not_sent", "delivered", "undelivered", "seen", "clicked", "order", "unsubscribe", "return"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A policy's answer: the action (no send is the channel "none"), its propensity, and when to ask for the next step; None: never.

    Where `is_deferred`, the same step is asked for again at `ask_time`.
    """

    action: Action
    propensity: float = 1.0
    ask_time: datetime | None = None
    is_deferred: bool = False
    distribution: Distribution | None = None
    """What the action was drawn from, for the log; None where the policy does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Something that a caller of the service would report."""

    event_id: str
    decision_id: str
    step: int
    type: OutcomeType
    occur_time: datetime
    customer_id: str
    value_micros: int | None = None
    cost_micros: int | None = None
    """What a send cost; of SENT alone."""


class Policy(Protocol):
    """What decides in the world."""

    @property
    def name(self) -> str:
        """Name, as tables show it."""
        ...

    def decide(self, context: Context) -> Reply:
        """Decide a step; that there is a later step says that nothing has ended the message yet."""
        ...

    def observe(self, outcome: Outcome) -> None:
        """Learn of an outcome, at the time when a caller would."""
        ...


@runtime_checkable
class JointPolicy(Policy, Protocol):
    """A policy that decides messages to one person which arrive in the same hour together, as BatchChooseChannel does."""

    def decide_together(self, contexts: Sequence[Context]) -> Sequence[Reply]:
        """Decide the first steps of all of them, each as it was before any; replies in the same order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step as it was decided."""

    context: Context
    reply: Reply
    price_micros: int
    gain: Expected
    """What it is exactly expected to add, given all that was known then."""
    history: tuple[Happened, ...] = ()
    """The message's sends until then, with what was known of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run came to. Money in roubles. `by_message` has shape (m,): expected net value of each message's steps."""

    expected: Expected
    realised: Expected
    by_message: FloatArray
    sends: dict[str, int]
    steps: tuple[Step, ...]
    outcomes: tuple[Outcome, ...]
    owed: int = 0
    """How many messages were owed."""
    owed_unsent: int = 0
    """How many of them were never sent, through no channel."""
    spend_by_day: tuple[float, ...] = ()
    """Roubles spent on sends of each day in UTC, from that of the first message on; their sum is `realised.spend`."""
    refused: int = 0
    """Sends that were refused since the budget was used up."""

    @property
    def spend(self) -> float:
        """Roubles spent."""
        return self.realised.spend


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A message of which nothing more will be known: its steps and outcomes, each in their order."""

    index: int
    steps: tuple[Step, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a run begins: contacts, withdrawn consents and orders of each customer so far."""

    contacts: dict[int, tuple[Contact, ...]] = field(default_factory=dict)
    withdrawn: frozenset[tuple[int, int]] = frozenset()
    orders: dict[int, tuple[datetime, ...]] = field(default_factory=dict)
    reactions: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Hours since 1970 in which they looked at a message or ordered."""


def request_name(decision_id: str, deferrals: int) -> str:
    """Return the request_id with which a caller asks for a message after so many deferrals."""
    return f"{decision_id}/again-{deferrals}" if deferrals else decision_id
