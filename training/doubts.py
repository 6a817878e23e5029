"""What a log cannot teach though it can be trained on: said before training, so that nobody reads more into a model than it knows."""

import numpy as np

from models.features import CUSTOM_PREFIX, NO_SEND
from training.dataset import Dataset, is_number

_FEW_SENDS = 100
_MOSTLY_MISSING = 0.5


def find_doubts(data: Dataset) -> list[str]:
    """Return what to know about a data set, one sentence each; nothing where it is as it should be."""
    sampled = [] if data.sample is None else [data.sample.text]
    return [*sampled, *_certainty(data), *_rare_channels(data), *_missing_features(data), *_mixed_features(data)]


def _certainty(data: Dataset) -> list[str]:
    share = float((data.propensity == 1).mean())
    if share == 1:
        return [
            "every propensity is 1: nothing was left to chance, so what a send adds cannot be told from whom it was sent to, "
            "unless no send was drawn as a holdout; log with exploration, and give its propensities"
        ]
    if share > _MOSTLY_MISSING:
        return [f"{share:.0%} of the decisions have propensity 1; what a send adds is learned from the others alone"]
    return []


def _rare_channels(data: Dataset) -> list[str]:
    sent = data.channel[data.channel != NO_SEND]
    names, counts = np.unique(sent, return_counts=True)
    return [
        f"{name} was sent {count} times; with less than {_FEW_SENDS} it is hardly told from the other channels"
        for name, count in zip(names.tolist(), counts.tolist(), strict=True)
        if count < _FEW_SENDS
    ]


def _missing_features(data: Dataset) -> list[str]:
    found = []
    for index, column in enumerate(data.columns):
        share = float(np.isnan(data.matrix[:, index]).mean())
        if column.name.startswith(CUSTOM_PREFIX) and share >= _MOSTLY_MISSING:
            found.append(
                f"{column.name} is missing in {share:.0%} of the decisions; those are taken as they are without it"
            )
    return found


def _mixed_features(data: Dataset) -> list[str]:
    found = []
    for column in data.columns:
        numbers = [value for value in column.categories if is_number(value)]
        texts = [value for value in column.categories if not is_number(value)]
        if column.name.startswith(CUSTOM_PREFIX) and numbers and texts:
            found.append(
                f"{column.name} holds numbers such as {numbers[0]} and texts such as {texts[0]}; all of it is taken as text, so that numbers have no order: "
                "send one type"
            )
    return found
