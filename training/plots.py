"""Plots of a fit, as PNG files."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from models.features import NO_SEND
from training.dataset import Dataset
from training.fit import Fitted, observed_uplift, reliability

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is set first

_SIZE = (5.6, 4.0)


def plot_fit(fitted: Fitted, folder: Path) -> list[Path]:
    """Draw calibration, learning curve, importances and uplift by channel; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        _calibration(fitted, folder / "calibration.png"),
        _learning_curve(fitted, folder / "learning_curve.png"),
        _importance(fitted, folder / "importance.png"),
    ]
    uplift = _uplift(fitted.later, folder / "uplift_by_channel.png")
    return [*paths, uplift] if uplift else paths


def _save(path: Path) -> Path:
    plt.tight_layout()
    plt.savefig(path, dpi=120)
    plt.close()
    return path


def _calibration(fitted: Fitted, path: Path) -> Path:
    found = reliability(fitted.later.response, fitted.p_later)
    means, rates = [mean for mean, _, _ in found], [rate for _, rate, _ in found]
    errors = [1.96 * np.sqrt(rate * (1 - rate) / count) for _, rate, count in found]
    plt.figure(figsize=_SIZE)
    top = max(max(means), max(rates)) * 1.05
    plt.plot([0, top], [0, top], color="grey", linewidth=1, label="perfect")
    plt.errorbar(means, rates, yerr=errors, marker="o", capsize=2, label="later decisions, tenths")
    plt.xlabel("predicted P(order)")
    plt.ylabel("share that ordered (95 % interval)")
    plt.title("Calibration on decisions the model did not see")
    plt.legend()
    return _save(path)


def _learning_curve(fitted: Fitted, path: Path) -> Path:
    plt.figure(figsize=_SIZE)
    for name, values in fitted.learning_curve.items():
        plt.plot(range(1, len(values) + 1), values, label=f"{name} decisions")
    plt.axvline(fitted.metrics["trees"], color="grey", linewidth=1, label="trees kept")
    plt.xlabel("trees")
    plt.ylabel("log loss")
    plt.title("Learning curve")
    plt.legend()
    return _save(path)


def _importance(fitted: Fitted, path: Path) -> Path:
    ranked = sorted(fitted.importance.items(), key=lambda item: item[1])[-20:]
    total = sum(fitted.importance.values()) or 1.0
    plt.figure(figsize=(_SIZE[0], max(2.5, 0.28 * len(ranked))))
    plt.barh([name for name, _ in ranked], [100 * gain / total for _, gain in ranked])
    plt.xlabel("share of gain, %")
    plt.title("What the model looks at")
    return _save(path)


def _uplift(later: Dataset, path: Path) -> Path | None:
    effects = {str(c): observed_uplift(later, str(c)) for c in np.unique(later.channel) if c != NO_SEND}
    known = {channel: effect for channel, effect in effects.items() if effect is not None}
    if not known:
        return None
    plt.figure(figsize=_SIZE)
    plt.bar(list(known), [100 * effect for effect in known.values()])
    plt.axhline(0, color="grey", linewidth=1)
    plt.ylabel("points of order rate above no send")
    plt.title("Observed uplift by channel, later decisions")
    plt.xticks(rotation=30, ha="right")
    return _save(path)
