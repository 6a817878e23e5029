"""A bundle without one of its parts, to see what that part earns."""

from dataclasses import replace

import numpy as np

from models.bundle import Bundle
from models.curves import FunnelModel
from models.rhythm import WEEK


def without_rhythm(bundle: Bundle) -> Bundle:
    """Return a bundle that knows the mean week of all customers, but nobody's own; one without a funnel knows no week."""
    if bundle.funnel is None:
        return bundle
    description = bundle.funnel.description
    weeks = np.array(description.rhythm.weeks).reshape(-1, WEEK)
    mean = np.average(weeks, axis=0, weights=description.rhythm.shares)
    rhythm = replace(description.rhythm, shares=(1.0,), weeks=(tuple(map(float, mean)),), own_weight=1e9)
    return bundle.with_funnel(FunnelModel(replace(description, rhythm=rhythm), bundle.funnel.boosters))


def without_funnel(bundle: Bundle) -> Bundle:
    """Return a bundle of the one model of orders, which knows nothing of noticing and clicking."""
    return bundle.with_funnel(None)
