"""Uniform draws of many messages, made when they are asked for, a block of messages at a time.

The numbers are those of one `numpy.random.Generator.random` call over all messages: PCG64 takes one step for each, so that any block can be
drawn by itself.
"""

from collections import OrderedDict
from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_BLOCK = 4096
_KEPT = 8


class Draws:
    """Draws of shape (count, *shape) under a seed, of which the blocks asked for last are kept."""

    def __init__(self, seed: Sequence[int], count: int, shape: tuple[int, ...]) -> None:
        self._seed, self._count, self._shape = list(seed), count, shape
        self._blocks: OrderedDict[int, FloatArray] = OrderedDict()

    def of(self, index: int) -> FloatArray:
        """Return the draws of one message."""
        block, place = divmod(index, _BLOCK)
        if block not in self._blocks:
            rows = min(_BLOCK, self._count - block * _BLOCK)
            self._blocks[block] = self._from(block * _BLOCK).random((rows, *self._shape))
            if len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        return np.asarray(self._blocks[block][place])

    def rest(self) -> np.random.Generator:
        """Return the generator as it is after all of these draws."""
        return self._from(self._count)

    def _from(self, row: int) -> np.random.Generator:
        bits = np.random.PCG64(np.random.SeedSequence(self._seed))
        return np.random.Generator(bits.advance(row * prod(self._shape)))
