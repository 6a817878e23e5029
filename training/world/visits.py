"""Customers' own visits, which no message caused: Poisson by hour, at their activity and rhythm.

The retailer knows of them from its site and app from four weeks before START on.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.world.clock import EPOCH_HOURS, WEEK
from training.world.people import Population
from training.world.zones import week_hours_of_all

IntArray = NDArray[np.int64]
_WEEKS_BEFORE = 4
_ENOUGH = 96


@dataclass(frozen=True, slots=True)
class Visits:
    """Hours with a visit: those of person p are hours[begin[p]:begin[p + 1]], in order, since START."""

    hours: IntArray
    begin: IntArray

    def of(self, person: int, until: int) -> list[int]:
        """Return the latest hours, since 1970, in which a person visited before an hour since START."""
        mine = self.hours[self.begin[person] : self.begin[person + 1]]
        known = mine[: int(np.searchsorted(mine, until, side="left"))][-_ENOUGH:]
        return [int(hour) for hour in known + EPOCH_HOURS]


def make_visits(people: Population, end: int) -> Visits:
    """Draw the visits up to an hour since START; those of a week do not depend on how many weeks follow."""
    persons: list[IntArray] = []
    hours: list[IntArray] = []
    for week in range(-_WEEKS_BEFORE, -(-end // WEEK)):
        rng = np.random.default_rng([people.seed, 5, week + _WEEKS_BEFORE])
        local = week_hours_of_all(week * WEEK + np.arange(WEEK))[people.zone]
        rate = (people.activity / 24)[:, None] * np.take_along_axis(people.rhythm, local, axis=1)
        person, hour = np.nonzero(rng.random(rate.shape) < 1 - np.exp(-rate))
        persons.append(person)
        hours.append(hour + week * WEEK)
    person, hour = np.concatenate(persons), np.concatenate(hours)
    order = np.argsort(person, kind="stable")
    begin = np.searchsorted(person[order], np.arange(len(people) + 1))
    return Visits(hours=hour[order], begin=begin)
