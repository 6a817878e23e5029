"""Plots of a fit, as PNG files."""

from datetime import datetime
from pathlib import Path

import lightgbm as lgb
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from models.features import NO_SEND
from models.local_time import zone
from training.dataset import Dataset
from training.fit import Fitted, observed_uplift, reliability, uplift_error
from training.grow import as_no_send

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is set first

FloatArray = NDArray[np.float64]
_SIZE = (5.6, 4.0)
_EXPLAINED = 2000
_LEAST_IN_STEP = 20
"""Sends from which a step of hours is drawn."""


def plot_fit(fitted: Fitted, folder: Path) -> list[Path]:
    """Draw calibration, learning curve, importances, responses by hour, gain curves and uplift by channel; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        _calibration(fitted, folder / "calibration.png"),
        _learning_curve(fitted, folder / "learning_curve.png"),
        _importance(fitted, folder / "importance.png"),
        _shap(fitted, folder / "shap.png"),
        _by_hour(fitted.later, folder / "response_by_hour.png"),
    ]
    more = (
        _uplift(fitted.later, folder / "uplift_by_channel.png"),
        _gain(fitted, folder / "gain.png"),
    )
    return [*paths, *(path for path in more if path is not None)]


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
    errors = [196 * uplift_error(later, channel) for channel in known]
    plt.bar(list(known), [100 * effect for effect in known.values()], yerr=errors, capsize=3, ecolor="grey")
    plt.axhline(0, color="grey", linewidth=1)
    plt.ylabel("points of order rate above no send (95 % interval)")
    plt.title("Observed uplift by channel, later decisions")
    plt.xticks(rotation=30, ha="right")
    return _save(path)


def _shap(fitted: Fitted, path: Path) -> Path:
    """Draw the mean size of each feature's SHAP value (Lundberg & Lee 2017) in the one model, over up to 2,000 later decisions."""
    model = lgb.Booster(model_str=fitted.model_text)
    values = np.asarray(model.predict(fitted.later.matrix[:_EXPLAINED], pred_contrib=True))[:, :-1]
    sizes = np.abs(values).mean(axis=0)
    ranked = sorted(zip((c.name for c in fitted.description.columns), sizes, strict=True), key=lambda item: item[1])[
        -20:
    ]
    plt.figure(figsize=(_SIZE[0], max(2.5, 0.28 * len(ranked))))
    plt.barh([name for name, _ in ranked], [float(size) for _, size in ranked])
    plt.xlabel("mean size of the SHAP value, logit of P(order)")
    plt.title("What moves the one model's prediction")
    return _save(path)


def _by_hour(later: Dataset, path: Path) -> Path:
    """Draw for each channel the share of sends that was seen, by the customer's hour of sending, in steps of three hours."""
    sent = np.flatnonzero(later.channel != NO_SEND)
    moments = [datetime.fromtimestamp(3600 * float(later.send_hours[i]), zone(str(later.time_zone[i]))) for i in sent]
    step = np.array([moment.hour // 3 for moment in moments], dtype=np.intp)
    plt.figure(figsize=_SIZE)
    for channel in np.unique(later.channel[sent]):
        mine = later.channel[sent] == channel
        counts = np.bincount(step[mine], minlength=8)
        seen = np.bincount(step[mine], later.seen[sent][mine], minlength=8)
        known = counts >= _LEAST_IN_STEP
        if known.any():
            plt.plot(3 * np.flatnonzero(known) + 1.5, 100 * seen[known] / counts[known], marker="o", label=str(channel))
    plt.xlim(0, 24)
    plt.xlabel("hour of sending, the customer's own")
    plt.ylabel("seen or clicked, %")
    plt.title("Response by hour of sending, later decisions")
    if plt.gca().get_legend_handles_labels()[0]:
        plt.legend()
    return _save(path)


def gain_curve(later: Dataset, score: FloatArray, channel: str) -> FloatArray | None:
    """Return what sending through a channel to the tenths of decisions with the greatest score adds to the order rate of all, shape (11,).

    At share f it is f times the uplift among them, each side weighted by inverse propensity: a Qini curve (Radcliffe 2007) as a rate. None where one side
    is missing in some tenth.
    """
    order = np.argsort(-score, kind="stable")
    sent, none = (later.channel == channel)[order], (later.channel == NO_SEND)[order]
    weight, response = (1 / later.propensity)[order], later.response[order]
    found = [0.0]
    for share in range(1, 11):
        top = slice(0, round(len(order) * share / 10))
        if not sent[top].any() or not none[top].any():
            return None
        rates = [np.average(response[top][side[top]], weights=weight[top][side[top]]) for side in (sent, none)]
        found.append(share / 10 * float(rates[0] - rates[1]))
    return np.array(found)


def uplift_scores(fitted: Fitted, channel: str) -> FloatArray:
    """Return P(order | sent through a channel) - P(order | no send) of later decisions by the one model of the earlier part, which did not see them."""
    model = lgb.Booster(model_str=fitted.earlier_text)
    columns = fitted.description.columns
    place = next(i for i, column in enumerate(columns) if column.name == "channel")
    sent = fitted.later.matrix.copy()
    sent[:, place] = columns[place].codes.get(channel, np.nan)
    by_send, by_none = (
        np.asarray(model.predict(rows), dtype=np.float64) for rows in (sent, as_no_send(columns, fitted.later.matrix))
    )
    difference: FloatArray = by_send - by_none
    return difference


def _gain(fitted: Fitted, path: Path) -> Path | None:
    later = fitted.later
    names, counts = np.unique(later.channel[later.channel != NO_SEND], return_counts=True)
    most = [str(name) for name in names[np.argsort(-counts)][:3]]
    curves = {name: gain_curve(later, uplift_scores(fitted, name), name) for name in most}
    known = {name: curve for name, curve in curves.items() if curve is not None}
    if not known:
        return None
    plt.figure(figsize=_SIZE)
    for name, curve in known.items():
        (line,) = plt.plot(np.arange(11) * 10, 100 * curve, marker=".", label=name)
        plt.plot([0, 100], [0, 100 * curve[-1]], color=line.get_color(), linewidth=1, linestyle=":")
    plt.xlabel("share of decisions sent to, by modelled uplift, %")
    plt.ylabel("points of order rate gained")
    plt.title("Gain (Qini) curves of the one model, later decisions")
    plt.legend()
    return _save(path)
