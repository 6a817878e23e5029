"""One stage of the funnel: a regularised linear part, and LightGBM boosted from its score.

    score(x, c) = w . f(x) + w_c . f(x) + trees(x, c)

f(x) holds 1, every number column as (l(x) - mean) / deviation with l(x) = sign(x) log(1 + |x|), 0 where it is missing, one column for each
number that is missing somewhere, and one for each category. w_c are weights of a channel's own, 0 for a channel that the log did not hold.
What the score means, a logit or a log rate, is the stage's affair.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from models.features import Column

FloatArray = NDArray[np.float64]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How number columns are scaled: arrays by column, of the length of the columns; of a category column they are not used."""

    __pydantic_config__ = ConfigDict(extra="ignore")

    means: tuple[_Finite, ...]
    deviations: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    has_missing: tuple[bool, ...]


class Design:
    """Turns encoded rows into f(x)."""

    def __init__(self, columns: Sequence[Column], scaling: Scaling) -> None:
        numbers = [i for i, c in enumerate(columns) if c.kind == "number"]
        self._numbers = np.array(numbers, dtype=np.intp)
        self._means = np.array(scaling.means)[self._numbers]
        self._deviations = np.array(scaling.deviations)[self._numbers]
        self._gaps = np.array([i for i in numbers if scaling.has_missing[i]], dtype=np.intp)
        categories = [i for i, c in enumerate(columns) if c.kind == "category" and c.name != "channel"]
        self._categories = np.array(categories, dtype=np.intp)
        self._sizes = np.array([len(columns[i].categories) for i in categories], dtype=np.intp)
        self._begins = 1 + len(numbers) + len(self._gaps) + np.cumsum(self._sizes) - self._sizes
        self.channels = next((c.categories for c in columns if c.name == "channel"), ())
        self._channel = next((i for i, c in enumerate(columns) if c.name == "channel"), None)
        self.width = 1 + len(numbers) + len(self._gaps) + int(self._sizes.sum())

    def base(self, matrix: FloatArray) -> FloatArray:
        """Return f(x) of encoded rows, shape (n, width)."""
        found = np.zeros((len(matrix), self.width))
        found[:, 0] = 1.0
        numbers = matrix[:, self._numbers]
        end = 1 + len(self._numbers)
        scaled = (np.sign(numbers) * np.log1p(np.abs(numbers)) - self._means) / self._deviations
        found[:, 1:end] = np.where(np.isnan(scaled), 0.0, np.minimum(np.maximum(scaled, -8.0), 8.0))
        found[:, end : end + len(self._gaps)] = np.isnan(matrix[:, self._gaps])
        codes = matrix[:, self._categories]
        rows, places = np.nonzero((codes >= 0) & (codes < self._sizes))
        found[rows, self._begins[places] + codes[rows, places].astype(np.intp)] = 1.0
        return found

    def groups(self) -> NDArray[np.intp]:
        """Return to which group each column of f belongs: -1 the constant, 0 numbers, 1 gaps, then each category column; shape (width,)."""
        found = [-1, *[0] * len(self._numbers), *[1] * len(self._gaps)]
        for place, size in enumerate(self._sizes):
            found.extend([2 + place] * size)
        return np.array(found, dtype=np.intp)

    def names(self, columns: Sequence[Column]) -> tuple[str, ...]:
        """Return of which column each entry of f tells, empty of the constant; shape (width,)."""
        indices = [*self._numbers, *self._gaps, *np.repeat(self._categories, self._sizes)]
        return ("", *(columns[i].name for i in indices))

    def channel_codes(self, matrix: FloatArray) -> NDArray[np.intp]:
        """Return the place of each row's channel, -1 for an unknown one or none; shape (n,)."""
        if self._channel is None:
            return np.full(len(matrix), -1, dtype=np.intp)
        codes = matrix[:, self._channel]
        return np.where((codes >= 0) & (codes < len(self.channels)), codes, -1).astype(np.intp)


def linear_scores(weights: FloatArray, base: FloatArray, codes: NDArray[np.intp]) -> FloatArray:
    """Return the linear part's scores, shape (n,); `weights` has a row of all channels and then one of each, shape (1 + c, width)."""
    scores: FloatArray = base @ weights[0]
    known = codes >= 0
    if len(weights) > 1 and known.any():
        scores[known] += np.einsum("ij,ij->i", base[known], weights[1 + codes[known]])
    return scores


def sums_by_channel(weights: FloatArray, channels: int) -> FloatArray:
    """Return the sums that `linear_scores` forms: a row for each channel by its code, and last that of an unknown one; shape (channels + 1, width)."""
    found = np.repeat(weights[:1], channels + 1, axis=0)
    found[: len(weights) - 1] += weights[1:]
    return found
