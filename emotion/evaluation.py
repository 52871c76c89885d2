"""Metrics of the seven-emotion classifier, with 95 % intervals: arrays in, numbers out.

Only NumPy is needed. Labels and predictions are class indices 0..6 in the order of `emotion.labels.EMOTIONS`; probabilities
have shape (n, 7). A ratio without a denominator (the precision of a class that was never predicted) counts as 0, which is
scikit-learn's `zero_division=0`, and averages always run over all seven classes, absent ones included.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from emotion.labels import EMOTIONS

CLASSES = len(EMOTIONS)
Z_95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
SMALLEST = 1e-7  # as in Keras' losses: a probability that was rounded to 0 must not cost an infinite penalty


class ClassScores(NamedTuple):
    """Scores per class, each float64 of shape (..., 7): ratios in 0..1, and `support`, the number of true rows."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray

    def macro(self) -> dict[str, np.ndarray]:
        """Returns precision, recall and f1 as plain means over the seven classes, each of shape (...)."""
        return {name: getattr(self, name).mean(axis=-1) for name in ("precision", "recall", "f1")}

    def weighted(self) -> dict[str, np.ndarray]:
        """Returns precision, recall and f1 as means weighted with `support`; the recall equals the accuracy."""
        share = self.support / self.support.sum(axis=-1, keepdims=True)
        return {name: (share * getattr(self, name)).sum(axis=-1) for name in ("precision", "recall", "f1")}


def evaluate(labels: np.ndarray, probabilities: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> dict:
    """Measures everything that a run record needs.

    Args:
        labels: true classes, integers 0..6, shape (n,).
        probabilities: shape (n, 7), 0..1, each row summing to 1 within 1e-3 (so float16 is welcome).
        resamples: bootstrap resamples behind the interval of macro-F1.
        seed: seed of the bootstrap; the same seed gives the same interval.

    Returns:
        A JSON-serialisable dict: `n`, `accuracy` and `macro_f1` as {value, low, high}, `macro_precision`, `macro_recall`,
        `weighted_precision`, `weighted_recall`, `weighted_f1`, `per_class` {emotion: {precision, recall {value, low, high},
        f1, support}}, `confusion` (7 x 7 counts, rows = truth), `nll` (nats) and `ece`. All ratios are in 0..1; low and
        high bound 95 % intervals: Wilson for accuracy and recall, bootstrap for macro-F1.

    Raises:
        ValueError: an array breaks a rule above; the message names the rule, the value and the row.
    """
    labels, probabilities = _checked(labels, probabilities)
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1))
    scores = class_scores(confusion)
    low, high = bootstrap_interval(confusion, macro_f1, resamples=resamples, seed=seed)
    averages = {f"macro_{name}": float(value) for name, value in scores.macro().items()}
    averages |= {f"weighted_{name}": float(value) for name, value in scores.weighted().items()}
    per_class = {
        emotion: {
            "precision": float(scores.precision[i]),
            "recall": _proportion(confusion[i, i], confusion[i].sum()),
            "f1": float(scores.f1[i]),
            "support": int(scores.support[i]),
        }
        for i, emotion in enumerate(EMOTIONS)
    }
    return {
        "n": len(labels),
        "accuracy": _proportion(np.trace(confusion), len(labels)),
        **averages,
        "macro_f1": {"value": averages["macro_f1"], "low": float(low), "high": float(high)},
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "nll": negative_log_likelihood(labels, probabilities),
        "ece": expected_calibration_error(labels, probabilities),
    }


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Counts (truth, prediction) pairs.

    Args:
        labels: true classes, integers 0..6, shape (n,).
        predictions: predicted classes, integers 0..6, shape (n,).

    Returns:
        int64, shape (7, 7); rows are the truth, columns the prediction.

    Raises:
        ValueError: the arrays differ in shape, are empty or hold anything but integers 0..6.
    """
    labels = _classes(labels, "labels")
    predictions = _classes(predictions, "predictions", rows=len(labels))
    return np.bincount(labels * CLASSES + predictions, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Computes precision, recall and F1 of every class from one or many confusion matrices of shape (..., 7, 7)."""
    counts = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    support, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    return ClassScores(_ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, support + predicted), support)


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Returns the mean F1 over the seven classes of confusion matrices (..., 7, 7), shape (...)."""
    return class_scores(confusion).f1.mean(axis=-1)


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Returns the 95 % interval (low, high) of a proportion, 0..1; no trial at all gives (0, 1).

    Unlike value +- 1.96 standard errors it stays inside 0..1 and holds for small n and for proportions near 0 or 1.
    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".

    Raises:
        ValueError: `hits` is not within 0..n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"hits must be within 0..n. Received: hits={hits}, n={n}")
    if n == 0:
        return 0.0, 1.0
    share, spread = hits / n, Z_95**2 / n
    centre = share + spread / 2
    margin = math.sqrt(spread * share * (1 - share) + spread**2 / 4)
    # At 0 and n hits the formula gives exactly 0 and 1; the clip removes what rounding leaves (2e-17).
    return max(0.0, (centre - margin) / (1 + spread)), min(1.0, (centre + margin) / (1 + spread))


def bootstrap_interval(
    confusion: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstraps the 95 % percentile interval of any statistic of a confusion matrix.

    Drawing n rows with replacement and counting them is the same as one multinomial draw of the 49 counts, so no row is
    ever copied and 2000 resamples take milliseconds.

    Args:
        confusion: counts, shape (7, 7).
        statistic: maps confusion matrices (r, 7, 7) to values (r,) or (r, k), such as `macro_f1` or
            `lambda c: class_scores(c).f1`.
        resamples: number of resamples r.
        seed: the same seed gives the same interval.

    Returns:
        low and high, each of the shape of one resample's value.
    """
    counts = np.asarray(confusion).reshape(-1)
    n = int(counts.sum())
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    low, high = np.percentile(statistic(draws.reshape(resamples, CLASSES, CLASSES)), (2.5, 97.5), axis=0)
    return low, high


def negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the mean of -log(probability of the true class), in nats; probabilities below 1e-7 count as 1e-7.

    Raises:
        ValueError: as `evaluate`.
    """
    labels, probabilities = _checked(labels, probabilities)
    return float(-_log(probabilities)[np.arange(len(labels)), labels].mean())


def reliability_curve(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> dict[str, np.ndarray]:
    """Compares how sure the model is with how often it is right.

    The largest probability of each row falls into one of `bins` equal-width bins, each open below and closed above.
    Source: Guo et al. (2017), "On calibration of modern neural networks".

    Returns:
        `edges` (bins + 1,) from 0 to 1, `count` (bins,) int64, and `confidence` and `accuracy` (bins,), the means over the
        bin's rows, NaN where the bin is empty.

    Raises:
        ValueError: as `evaluate`.
    """
    labels, probabilities = _checked(labels, probabilities)
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities.max(axis=1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    rows = np.where(count > 0, count, np.nan)
    return {
        "edges": edges,
        "count": count,
        "confidence": np.bincount(place, weights=confidence, minlength=bins) / rows,
        "accuracy": np.bincount(place, weights=probabilities.argmax(axis=1) == labels, minlength=bins) / rows,
    }


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Returns the mean distance between confidence and accuracy (0..1) over the rows of `reliability_curve`.

    Raises:
        ValueError: as `evaluate`.
    """
    curve = reliability_curve(labels, probabilities, bins)
    return float(np.nansum(curve["count"] * np.abs(curve["confidence"] - curve["accuracy"])) / curve["count"].sum())


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Softens (temperature > 1) or sharpens (< 1) probabilities: softmax(log p / temperature).

    Working on probabilities gives the same as dividing the logits, which saved models do not return. No ranking changes.

    Args:
        probabilities: shape (n, 7), 0..1; below 1e-7 they count as 1e-7.
        temperature: positive number; 1 changes nothing.

    Returns:
        float64, shape (n, 7), rows summing to 1.

    Raises:
        ValueError: the temperature is not a positive, finite number.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be a positive, finite number. Received: {temperature}")
    return np.exp(_log_softmax(_log(probabilities) / temperature))


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Finds the temperature (0.05..20) with the smallest negative log-likelihood; fit it on PublicTest, never on PrivateTest.

    The loss is convex in 1 / temperature and so has one minimum, which ever finer grids over log(temperature) enclose to
    four digits. Source: Guo et al. (2017).

    Raises:
        ValueError: as `evaluate`.
    """
    labels, probabilities = _checked(labels, probabilities)
    logits, rows = _log(probabilities), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -_log_softmax(logits / math.exp(log_temperature))[rows, labels].mean()

    low, high = math.log(0.05), math.log(20)
    for _ in range(5):  # each round keeps a twelfth of the range
        grid = np.linspace(low, high, 25)
        best = int(np.argmin([loss(log_temperature) for log_temperature in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 24)]
    return math.exp((low + high) / 2)


def selective_accuracy(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict:
    """Measures a model that says "not sure" when its highest probability is below a threshold.

    Returns:
        {`answered`, `accuracy`}, each {value, low, high}: the share of rows that get an answer, and the share of right ones among
        those; with 95 % intervals.

    Raises:
        ValueError: as `evaluate`.
    """
    labels, probabilities = _checked(labels, probabilities)
    answered = probabilities.max(axis=1) >= threshold
    right = probabilities.argmax(axis=1) == labels
    return {"answered": _proportion(answered.sum(), len(labels)), "accuracy": _proportion(right[answered].sum(), answered.sum())}


def mcnemar_test(labels: np.ndarray, predictions_a: np.ndarray, predictions_b: np.ndarray) -> dict:
    """Asks whether two models' accuracies on the same rows differ by more than chance.

    Only rows that one model gets right and the other wrong count; if the models were equally good, each such row would be
    a coin toss. The p value is the exact two-sided binomial one, so it also holds when few rows differ.
    Source: McNemar (1947), "Note on the sampling error of the difference between correlated proportions".

    Returns:
        {`only_a`: rows that only model a gets right, `only_b`: likewise, `p_value`: 0..1}.

    Raises:
        ValueError: the arrays differ in shape, are empty or hold anything but integers 0..6.
    """
    labels = _classes(labels, "labels")
    right_a = _classes(predictions_a, "predictions_a", rows=len(labels)) == labels
    right_b = _classes(predictions_b, "predictions_b", rows=len(labels)) == labels
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    tosses = only_a + only_b
    tail = sum(math.comb(tosses, k) for k in range(min(only_a, only_b) + 1))
    return {"only_a": only_a, "only_b": only_b, "p_value": min(1.0, 2 * tail / 2**tosses)}


def group_gaps(labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray) -> dict:
    """Compares the accuracy between groups of images: thirds of brightness, photo sources, disputed labels.

    Args:
        labels: true classes, integers 0..6, shape (n,).
        predictions: predicted classes, integers 0..6, shape (n,).
        groups: any values, shape (n,); equal values form a group.

    Returns:
        {`groups`: {name: {`n`, `accuracy` {value, low, high}}}, `best`: name, `worst`: name, `gap`: {value, low, high}}.
        The gap is best minus worst accuracy, with Newcombe's 95 % interval for two independent proportions. Best and
        worst are picked from the same rows, so among many small groups some gap is to be expected by chance.

    Raises:
        ValueError: the arrays differ in length, are empty or hold anything but classes 0..6.
    """
    labels = _classes(labels, "labels")
    right = _classes(predictions, "predictions", rows=len(labels)) == labels
    groups = np.asarray(groups)
    if groups.shape != labels.shape:
        raise ValueError(f"groups must have one entry per label, shape {labels.shape}. Received: shape {groups.shape}")
    names, place = np.unique(groups, return_inverse=True)
    members = {str(name): right[place == i] for i, name in enumerate(names)}
    found = {name: {"n": len(rows), "accuracy": _proportion(rows.sum(), len(rows))} for name, rows in members.items()}
    ranked = sorted(found, key=lambda name: found[name]["accuracy"]["value"])
    worst, best = found[ranked[0]]["accuracy"], found[ranked[-1]]["accuracy"]
    gap = best["value"] - worst["value"]
    below = math.hypot(best["value"] - best["low"], worst["high"] - worst["value"])
    above = math.hypot(best["high"] - best["value"], worst["value"] - worst["low"])
    gap = {"value": gap, "low": gap - below, "high": gap + above}
    return {"groups": found, "best": ranked[-1], "worst": ranked[0], "gap": gap}


def _proportion(hits: int, n: int) -> dict[str, float]:
    low, high = wilson_interval(int(hits), int(n))
    return {"value": int(hits) / int(n) if n else 0.0, "low": low, "high": high}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(np.asarray(probabilities, dtype=np.float64), SMALLEST, 1))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _classes(values: np.ndarray, name: str, rows: int | None = None) -> np.ndarray:
    """Returns class indices as int64 of shape (n,), or says which rule of `name` is broken."""
    values = np.asarray(values)
    if values.ndim != 1 or len(values) == 0 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name} must be integers of shape (n,), n >= 1. Received: {values.dtype} of shape {values.shape}")
    if rows is not None and len(values) != rows:
        raise ValueError(f"{name} must have one entry per label, {rows}. Received: {len(values)}")
    outside = np.flatnonzero((values < 0) | (values >= CLASSES))
    if len(outside):
        raise ValueError(f"{name} must be within 0..{CLASSES - 1}. Received: {values[outside[0]]} (row {outside[0]})")
    return values.astype(np.int64)


def _checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels int64 (n,) and probabilities float64 (n, 7), or says which rule is broken."""
    labels = _classes(labels, "labels")
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.shape != (len(labels), CLASSES):
        raise ValueError(
            f"probabilities must have shape {(len(labels), CLASSES)}, one row per label. Received: {probabilities.shape}"
        )
    row, column = np.unravel_index(np.argmin(probabilities >= 0), probabilities.shape)  # NaN is not >= 0 either
    if not probabilities[row, column] >= 0:
        raise ValueError(f"probabilities must be numbers >= 0. Received: {probabilities[row, column]} (row {row})")
    sums = probabilities.sum(axis=1)
    row = int(np.abs(sums - 1).argmax())
    if abs(sums[row] - 1) > 1e-3:
        raise ValueError(f"probabilities must sum to 1 within 0.001. Received: a sum of {sums[row]:.6g} (row {row})")
    return labels, probabilities
