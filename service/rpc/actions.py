"""The actions of an answer, written all at once as the bytes of the contract's messages.

An answer to who asks for everything has up to hundreds of `ActionValue`, each of them five amounts and five numbers; to set these one by one
from Python takes as long as half of the decision did. Here they are rows of a matrix of bytes in the wire format of protocol buffers
(https://protobuf.dev/programming-guides/encoding/), which the library then reads in. A whole number is written at full length, as a varint may
end in groups of zero bits; so all rows of a channel are equally long.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from models.actions import ActionTable
from models.record import to_micros
from models.slate import Action, Actions
from service.gen.channelchoice.v1 import decision_pb2 as pb
from service.gen.channelchoice.v1 import money_pb2 as money_pb

Bytes = NDArray[np.uint8]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_WHOLE, _DOUBLE, _NESTED = 0, 1, 2
"""Wire types: a varint, eight bytes, and bytes whose length comes first."""
_LONG = 10
"""Bytes of a varint of 64 bits."""
_SHIFTS = np.arange(0, 7 * _LONG, 7, dtype=np.uint64)
_MORE = np.array([0x80] * (_LONG - 1) + [0], dtype=np.uint8)
_NUMBERS = ("propensity", "p_response", "uplift", "p_unsubscribe", "shadow_price")
_AMOUNTS = ("incremental_value", "price", "harm", "net_value", "plan_value")
_MILLION = 1_000_000


def add_actions(message: pb.Decision, table: ActionTable, probabilities: FloatArray, currency: str) -> None:
    """Add the actions of a table, which are chosen with these probabilities, shape (n,), to a decision."""
    listed = table.listed
    form = listed.once((add_actions, currency), lambda: _Form.of(listed, currency))
    numbers = (probabilities, table.p_response, table.uplift, table.p_unsubscribe, table.shadow_price)
    amounts = (table.incremental_micros, table.price_micros, table.harm_micros, table.net_micros, table.plan_micros)
    matrix = form.matrix.copy()
    rows = matrix.view(form.fields)[:, 0]
    for name, values in zip(_NUMBERS, numbers, strict=True):
        rows[name] = values
    for name, written in zip(_AMOUNTS, varints(np.rint(np.stack(amounts)).astype(np.int64)), strict=True):
        rows[name] = written
    message.MergeFromString(b"".join([matrix[first:end, begin:].tobytes() for first, end, begin in form.runs]))


def varints(values: IntArray) -> Bytes:
    """Return each whole number as a varint of ten bytes, shape (..., 10)."""
    groups = (values.view(np.uint64)[..., None] >> _SHIFTS).astype(np.uint8)
    groups &= 0x7F
    groups |= _MORE
    return groups


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What n actions have in common in all answers: their rows, which end alike and begin as long as channel and time need."""

    matrix: Bytes
    """The rows with all numbers and amounts 0, shape (n, bytes of the longest)."""
    fields: np.dtype[np.void]
    """Where in a row these are to be written."""
    runs: tuple[tuple[int, int, int], ...]
    """First and end of actions one after another of one channel, and the byte at which their rows begin."""

    @classmethod
    def of(cls, listed: Actions, currency: str) -> "_Form":
        firsts, kind = listed.kinds
        time, time_places = _time()
        tail = _tail(currency)[0]
        heads = [_head(action, time, len(tail)) for action in firsts]
        longest = max(len(time), *map(len, heads))
        lines = np.frombuffer(b"".join(bytes(longest - len(head)) + head + tail for head in heads), dtype=np.uint8)
        matrix = lines.reshape(len(heads), longest + len(tail))[kind]
        moments, of_moment = listed.moments
        whole = [(0, 0) if moment is None else divmod(to_micros(moment), _MILLION) for moment in moments]
        written = varints(np.array(whole, dtype=np.int64) * (1, 1000))[of_moment]
        for column, place in enumerate(time_places):
            begin = longest - len(time) + place
            matrix[listed.is_send, begin : begin + _LONG] = written[listed.is_send, column]
        begins = [*np.flatnonzero(np.diff(kind, prepend=-1)).tolist(), len(kind)]
        runs = tuple((first, end, longest - len(heads[kind[first]])) for first, end in pairwise(begins))
        return cls(matrix=matrix, fields=_fields(currency, longest), runs=runs)


def _head(action: Action, time: bytes, following: int) -> bytes:
    """Return an action up to its numbers, so many bytes of which follow; the time of a send comes last."""
    said = b"" if action.send_time is None else _nested(pb.ActionValue, "channel", action.channel.encode()) + time
    return _key(pb.Decision, "actions", _NESTED) + _length(len(said) + following) + said


@cache
def _time() -> tuple[bytes, tuple[int, int]]:
    """Return the time of a send, which is 0, and the bytes at which its seconds and nanoseconds are written."""
    parts = [_key(Timestamp, name, _WHOLE) + bytes(_LONG) for name in ("seconds", "nanos")]
    time = _nested(pb.ActionValue, "send_time", b"".join(parts))
    return time, (len(time) - len(parts[1]) - _LONG, len(time) - _LONG)


@cache
def _tail(currency: str) -> tuple[bytes, dict[str, int]]:
    """Return numbers and amounts of an action, all 0, and the byte at which each is written."""
    micros = _key(money_pb.Money, "micros", _WHOLE)
    amount = micros + bytes(_LONG) + _nested(money_pb.Money, "currency", currency.encode())
    tail, places = b"", {}
    for name in _NUMBERS:
        tail += _key(pb.ActionValue, name, _DOUBLE)
        places[name] = len(tail)
        tail += bytes(8)
    for name in _AMOUNTS:
        written = _nested(pb.ActionValue, name, amount)
        places[name] = len(tail) + len(written) - len(amount) + len(micros)
        tail += written
    return tail, places


@cache
def _fields(currency: str, before: int) -> np.dtype[np.void]:
    """Return where numbers and amounts are written in rows of which so many bytes come before them."""
    tail, places = _tail(currency)
    fields: Any = {
        "names": list(places),
        "formats": [(np.uint8, _LONG) if name in _AMOUNTS else "<f8" for name in places],
        "offsets": [before + place for place in places.values()],
        "itemsize": before + len(tail),
    }
    found: np.dtype[np.void] = np.dtype(fields)
    return found


def _key(message: Any, field: str, wire_type: int) -> bytes:
    return _length(message.DESCRIPTOR.fields_by_name[field].number << 3 | wire_type)


def _nested(message: Any, field: str, content: bytes) -> bytes:
    return _key(message, field, _NESTED) + _length(len(content)) + content


def _length(number: int) -> bytes:
    """Return a small whole number as the shortest varint."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])
