"""What is wrong with the files of a log: gathered while they are read, and told all at once."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.errors import LogRefused, Violation

Rows = NDArray[np.int64]
_MOST = 20
_MOST_ALIKE = 3


class Places:
    """Where the rows of a table are that is kept in one file or in several parts: rows are numbered through all parts, from 0."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._starts: list[int] = []

    def begin(self, name: str, row: int) -> None:
        """Say that a part begins at that row."""
        self._names.append(name)
        self._starts.append(row)

    def name(self, row: int) -> str:
        """Return the part and the row within it, from 0."""
        part = bisect_right(self._starts, row) - 1
        return f"{self._names[part]} row {row - self._starts[part]}"


@dataclass(slots=True)
class Mistakes:
    """Mistakes by file, column and kind, the first few of each kind with their rows."""

    count: int = 0
    _alike: dict[tuple[str, str], int] = field(default_factory=dict)
    _shown: list[tuple[tuple[str, str], Violation]] = field(default_factory=list)

    def add(self, place: str, column: str, description: str, kind: str = "") -> None:
        """Note one mistake; those of one column and kind are told a few times and then counted."""
        self.count += 1
        key = (column, kind or f"{place} {description}")
        self._alike[key] = self._alike.get(key, 0) + 1
        if self._alike[key] <= _MOST_ALIKE and len(self._shown) < _MOST:
            self._shown.append((key, Violation(field=f"{place}, {column}", description=description)))

    def add_rows(self, places: Places, column: str, rows: Rows, values: Sequence[object] | None, advice: str) -> None:
        """Note the same mistake of several rows; values, where there are any, are those rows'."""
        for number, row in enumerate(rows[:_MOST_ALIKE].tolist()):
            said = advice if values is None else f"is {_brief(values[number])}; {advice}"
            self.add(places.name(row), column, said, kind=advice)
        left = max(len(rows) - _MOST_ALIKE, 0)
        self.count += left
        if left:
            self._alike[column, advice] += left

    def check(self, folder: str) -> None:
        """Raise LogRefused where there was any mistake."""
        if self.count:
            raise LogRefused(folder, self._told(), self.count)

    def _told(self) -> list[Violation]:
        """Return the mistakes to show; the last shown of a kind says how many more there are."""
        last = {key: number for number, (key, _) in enumerate(self._shown)}
        found = []
        for number, (key, violation) in enumerate(self._shown):
            more = self._alike[key] - sum(1 for other, _ in self._shown if other == key)
            if number == last[key] and more:
                rows = "row" if more == 1 else "rows"
                violation = Violation(
                    field=violation.field, description=f"{violation.description} ({more} more {rows} like it)"
                )
            found.append(violation)
        return found


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
