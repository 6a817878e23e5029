"""What is kept in memory of a whole log while its files are checked: hashes of ids, times and customers of all decisions.

Ids are hashed to 8 bytes, so that a decision takes some 100 bytes however long its ids are. Two different ids have equal hashes once in 2^64.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.features import NO_SEND
from training.logs.mistakes import Mistakes, Places

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
_ODD = np.uint64(0x9E3779B97F4A7C15)
_RESPONSES = ("delivered", "undelivered", "seen", "opened", "clicked", "unsubscribe", "complaint")


def hash_texts(texts: pa.Array | None, rows: int) -> tuple[Hashes, BoolArray]:
    """Return the hash of each text, shape (rows,), and which there are."""
    if texts is None:
        return np.zeros(rows, dtype=np.uint64), np.zeros(rows, dtype=bool)
    found = [
        0 if text is None else int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
        for text in texts.to_pylist()
    ]
    return np.array(found, dtype=np.uint64), np.asarray(pc.is_valid(texts).to_numpy(zero_copy_only=False), dtype=bool)


def column(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    """Return a column of a batch, None where the file has none."""
    return batch.column(name) if name in batch.schema.names else None


def integers(batch: pa.RecordBatch, name: str, default: int) -> Rows:
    """Return a column of integers with a default for what is null."""
    found = column(batch, name)
    if found is None:
        return np.full(len(batch), default, dtype=np.int64)
    values: Rows = found.fill_null(default).to_numpy(zero_copy_only=False)
    return values


def _with_step(keys: Hashes, steps: Rows) -> Hashes:
    with np.errstate(over="ignore"):
        mixed: Hashes = keys + steps.astype(np.uint64) * _ODD
    return mixed


class Lookup:
    """Finds the first row of a key among many."""

    def __init__(self, keys: Hashes, rows: Rows) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._rows = keys[order], rows[order]

    def find(self, keys: Hashes) -> tuple[Rows, BoolArray]:
        """Return the row of each key and whether there is one; the row of an unknown key means nothing."""
        if not len(self._keys):
            return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=bool)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return self._rows[at], self._keys[at] == keys

    def repeated(self) -> tuple[Rows, Rows]:
        """Return the rows whose key came before, and the row before each."""
        again = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        return self._rows[again + 1], self._rows[again]


class DecisionIndex:
    """Gathers the decisions of a log; `finish` checks their ids, then outcomes can be looked up."""

    def __init__(self) -> None:
        self._request: list[Hashes] = []
        self._decision: list[Hashes] = []
        self._named: list[BoolArray] = []
        self._customer: list[Hashes] = []
        self._step: list[Rows] = []
        self._time: list[Rows] = []
        self._sent: list[BoolArray] = []

    def add(self, batch: pa.RecordBatch) -> Hashes:
        """Take a batch of decisions; return the hashes of their customers."""
        request, _ = hash_texts(column(batch, "request_id"), len(batch))
        decision, is_named = hash_texts(column(batch, "decision_id"), len(batch))
        customer, _ = hash_texts(column(batch, "customer_id"), len(batch))
        channel = column(batch, "channel")
        is_sent = np.ones(len(batch), dtype=bool)
        if channel is not None:
            is_sent = np.asarray(
                pc.fill_null(pc.not_equal(channel, NO_SEND), True).to_numpy(zero_copy_only=False), dtype=bool
            )
        self._request.append(request)
        self._decision.append(decision)
        self._named.append(is_named)
        self._customer.append(customer)
        self._step.append(integers(batch, "step", 1).astype(np.int16))
        self._time.append(integers(batch, "decide_time", 0))
        self._sent.append(is_sent)
        return customer

    def finish(self, places: Places, mistakes: Mistakes) -> None:
        """Check that no step is there twice, and that the steps of one cascade are one customer's."""
        self.customer = np.concatenate(self._customer)
        self.time = np.concatenate(self._time)
        self.is_sent = np.concatenate(self._sent)
        request, decision = np.concatenate(self._request), np.concatenate(self._decision)
        named, step = np.flatnonzero(np.concatenate(self._named)), np.concatenate(self._step)
        for parts in (self._request, self._decision, self._named, self._customer, self._step, self._time, self._sent):
            parts.clear()
        rows = np.arange(len(request))
        self.requests = Lookup(request, rows)
        self.request_steps = Lookup(_with_step(request, step), rows)
        self.decisions = Lookup(decision[named], named)
        self.decision_steps = Lookup(_with_step(decision[named], step[named]), named)
        for name, lookup in (("request_id", self.request_steps), ("decision_id", self.decision_steps)):
            _refuse_repeated(
                lookup,
                places,
                mistakes,
                name,
                "and step are there before; give each step of each decision ids of its own",
            )
        for name, lookup in (("request_id", self.requests), ("decision_id", self.decisions)):
            later, earlier = lookup.repeated()
            is_other = self.customer[later] != self.customer[earlier]
            advice = "is of another customer in another row; a cascade is one customer's"
            mistakes.add_rows(places, name, np.sort(later[is_other]), None, advice)


def _refuse_repeated(lookup: Lookup, places: Places, mistakes: Mistakes, name: str, advice: str) -> None:
    later, _ = lookup.repeated()
    mistakes.add_rows(places, name, np.sort(later), None, advice)


class References:
    """Looks up what outcomes follow, and gathers what is odd about them."""

    def __init__(self, index: DecisionIndex, places: Places, mistakes: Mistakes) -> None:
        self._index = index
        self._places = places
        self._mistakes = mistakes
        self._events: list[Hashes] = []
        self._event_rows: list[Rows] = []
        self._early = 0
        self._unsent = 0
        self.strangers: list[Hashes] = [np.zeros(0, dtype=np.uint64)]
        """Customers of outcomes that follow no decision."""

    def add(self, batch: pa.RecordBatch, first_row: int) -> Hashes:
        """Take a batch of outcomes; return the hashes of their customers."""
        count = len(batch)
        customer, has_customer = hash_texts(column(batch, "customer_id"), count)
        decision, has_decision = hash_texts(column(batch, "decision_id"), count)
        request, has_request = hash_texts(column(batch, "request_id"), count)
        has_request &= ~has_decision
        step = integers(batch, "step", 0)
        rows = np.full(count, -1, dtype=np.int64)
        index = self._index
        for name, keys, used, whole, steps in (
            ("decision_id", decision, has_decision, index.decisions, index.decision_steps),
            ("request_id", request, has_request, index.requests, index.request_steps),
        ):
            found, is_known = whole.find(keys)
            exact, is_exact = steps.find(_with_step(keys, step))
            self._refuse(
                batch,
                used & ~is_known,
                name,
                first_row,
                f"no decision of decisions.parquet has this {name}; mend it, or give customer_id alone",
            )
            self._refuse(
                batch, used & is_known & (step > 0) & ~is_exact, "step", first_row, "the decision has no such step"
            )
            rows = np.where(used & is_known, np.where(is_exact, exact, found), rows)
        is_nobodys = ~(has_decision | has_request | has_customer)
        if is_nobodys.any():
            advice = "is null, and so are decision_id and request_id; say what the outcome follows, or whose it is"
            self._mistakes.add_rows(self._places, "customer_id", np.flatnonzero(is_nobodys) + first_row, None, advice)
        follows = rows >= 0
        owner = np.where(follows, index.customer[rows], customer)
        advice = "is not the customer of the decision that the outcome follows; mend one of the two"
        self._refuse(batch, follows & has_customer & (owner != customer), "customer_id", first_row, advice)
        self.strangers.append(np.unique(owner[~follows & has_customer]))
        self._note(batch, rows, follows)
        events, is_named = hash_texts(column(batch, "event_id"), count)
        self._events.append(events[is_named])
        self._event_rows.append(np.flatnonzero(is_named) + first_row)
        return owner

    def finish(self) -> None:
        """Check that no event is there twice."""
        lookup = Lookup(
            np.concatenate([np.zeros(0, np.uint64), *self._events]),
            np.concatenate([np.zeros(0, np.int64), *self._event_rows]),
        )
        _refuse_repeated(
            lookup, self._places, self._mistakes, "event_id", "is there before; give each event an id of its own"
        )

    def notes(self) -> list[str]:
        """Return what is odd about the outcomes though it is no mistake."""
        found = []
        if self._early:
            found.append(
                f"{self._early} outcomes are earlier than the decision that they follow; are the clocks of both the same?"
            )
        if self._unsent:
            found.append(
                f"{self._unsent} outcomes are of messages that were not sent, since their decision is a no send"
            )
        return found

    def _note(self, batch: pa.RecordBatch, rows: Rows, follows: BoolArray) -> None:
        moment = integers(batch, "occur_time", 0)
        self._early += int((follows & (moment < self._index.time[rows])).sum())
        kind = column(batch, "type")
        if kind is not None:
            is_response = np.asarray(pc.is_in(kind, pa.array(_RESPONSES)).to_numpy(zero_copy_only=False), dtype=bool)
            self._unsent += int((follows & is_response & ~self._index.is_sent[rows]).sum())

    def _refuse(self, batch: pa.RecordBatch, mask: BoolArray, name: str, first_row: int, advice: str) -> None:
        rows = np.flatnonzero(mask)
        values = column(batch, name)
        if len(rows) and values is not None:
            shown: Sequence[object] = [values[int(row)].as_py() for row in rows[:5]]
            self._mistakes.add_rows(self._places, name, rows + first_row, shown, advice)
