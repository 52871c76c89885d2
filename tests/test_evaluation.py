"""Contracts of emotion.evaluation, checked against scikit-learn, SciPy and numbers computed by hand or printed in papers."""

import json

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn import metrics

from emotion import evaluation
from emotion.labels import EMOTIONS

CLASSES = range(7)


def drawn_logits(n=3589, seed=0):
    """Returns labels int64 (n,) drawn from a model's own logits float64 (n, 7): softmax(logits) is perfectly calibrated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(n, 7)) + np.log([0.13, 0.02, 0.14, 0.25, 0.17, 0.12, 0.17])
    labels = (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return np.minimum(labels, 6), logits


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def surely(predictions):
    """Returns one-hot probabilities, shape (n, 7)."""
    return np.eye(7)[predictions]


# --- metrics


def test_scores_equal_those_of_scikit_learn():
    labels, logits = drawn_logits()
    predictions = logits.argmax(axis=1)
    found = evaluation.evaluate(labels, softmax(logits))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, predictions, labels=CLASSES)
    rows = [found["per_class"][emotion] for emotion in EMOTIONS]
    np.testing.assert_allclose([row["precision"] for row in rows], precision)
    np.testing.assert_allclose([row["recall"]["value"] for row in rows], recall)
    np.testing.assert_allclose([row["f1"] for row in rows], f1)
    assert [row["support"] for row in rows] == support.tolist()
    assert found["confusion"] == metrics.confusion_matrix(labels, predictions, labels=CLASSES).tolist()
    assert found["accuracy"]["value"] == pytest.approx(metrics.accuracy_score(labels, predictions))
    for average in ("macro", "weighted"):
        expected = metrics.precision_recall_fscore_support(labels, predictions, labels=CLASSES, average=average)
        assert found[f"{average}_precision"] == pytest.approx(expected[0])
        assert found[f"{average}_recall"] == pytest.approx(expected[1])
    assert found["macro_f1"]["value"] == pytest.approx(metrics.f1_score(labels, predictions, average="macro"))
    assert found["weighted_f1"] == pytest.approx(metrics.f1_score(labels, predictions, average="weighted"))
    assert found["nll"] == pytest.approx(metrics.log_loss(labels, softmax(logits), labels=CLASSES))


def test_rows_of_the_confusion_matrix_are_the_truth():
    matrix = evaluation.confusion_matrix(np.array([3, 3, 0]), np.array([3, 6, 6]))
    assert matrix[3, 3] == matrix[3, 6] == matrix[0, 6] == 1
    assert matrix.sum() == 3


def test_a_class_that_is_never_predicted_or_never_true_scores_zero_as_in_scikit_learn():
    labels, predictions = np.array([0, 0, 1, 2]), np.array([0, 3, 0, 2])
    found = evaluation.evaluate(labels, surely(predictions))
    expected = metrics.precision_recall_fscore_support(labels, predictions, labels=CLASSES, zero_division=0)
    np.testing.assert_allclose([found["per_class"][emotion]["precision"] for emotion in EMOTIONS], expected[0])
    np.testing.assert_allclose([found["per_class"][emotion]["f1"] for emotion in EMOTIONS], expected[2])
    assert found["macro_f1"]["value"] == pytest.approx(expected[2].mean())
    assert found["per_class"]["neutral"]["recall"] == {"value": 0.0, "low": 0.0, "high": 1.0}


def test_evaluate_survives_json_unchanged_and_has_the_fields_of_a_record():
    labels, logits = drawn_logits(300)
    found = evaluation.evaluate(labels, softmax(logits).astype(np.float16))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {"n", "accuracy", "macro_f1", "weighted_f1", "per_class", "confusion", "nll", "ece"} <= set(found)
    assert found["n"] == 300
    assert list(found["per_class"]) == list(EMOTIONS)
    for interval in (found["accuracy"], found["macro_f1"], found["per_class"]["happy"]["recall"]):
        assert 0 <= interval["low"] < interval["value"] < interval["high"] <= 1


# --- intervals


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_gives_the_values_printed_by_newcombe_1998(hits, n, low, high):
    assert evaluation.wilson_interval(hits, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (28, 55), (55, 55), (2600, 3589)])
def test_wilson_interval_equals_scipys(hits, n):
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert evaluation.wilson_interval(hits, n) == pytest.approx((expected.low, expected.high))


def test_wilson_interval_covers_the_true_proportion_95_times_in_100():
    n, hits = 55, np.arange(56)  # 55 images: disgust in PrivateTest
    low, high = np.array([evaluation.wilson_interval(k, n) for k in hits]).T
    truths = np.linspace(0.05, 0.95, 181)
    coverage = [stats.binom.pmf(hits, n, p)[(low <= p) & (p <= high)].sum() for p in truths]
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.01)
    assert min(coverage) > 0.91


def test_wilson_interval_refuses_more_hits_than_trials():
    with pytest.raises(ValueError, match=r"hits must be within 0..n. Received: hits=5, n=4"):
        evaluation.wilson_interval(5, 4)


def test_bootstrap_equals_resampling_rows():
    labels, logits = drawn_logits(600)
    predictions = logits.argmax(axis=1)
    found = evaluation.bootstrap_interval(evaluation.confusion_matrix(labels, predictions), evaluation.macro_f1, resamples=4000)
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, 600, 600) for _ in range(1000)]
    values = [evaluation.macro_f1(evaluation.confusion_matrix(labels[i], predictions[i])) for i in draws]
    np.testing.assert_allclose(found, np.percentile(values, (2.5, 97.5)), atol=0.008)


def test_bootstrap_is_reproducible_from_its_seed_alone():
    labels, logits = drawn_logits(400)
    np.random.seed(1)
    first = evaluation.evaluate(labels, softmax(logits), seed=5)
    np.random.seed(2)
    assert evaluation.evaluate(labels, softmax(logits), seed=5) == first
    assert evaluation.evaluate(labels, softmax(logits), seed=6)["macro_f1"] != first["macro_f1"]


def test_bootstrap_gives_one_interval_per_class_when_the_statistic_does():
    labels, logits = drawn_logits(800)
    confusion = evaluation.confusion_matrix(labels, logits.argmax(axis=1))
    low, high = evaluation.bootstrap_interval(confusion, lambda matrices: evaluation.class_scores(matrices).f1)
    f1 = evaluation.class_scores(confusion).f1
    assert low.shape == high.shape == (7,)
    assert np.all((low <= f1) & (f1 <= high))
    assert (high - low)[EMOTIONS.index("disgust")] > (high - low)[EMOTIONS.index("happy")]  # the rare class is less certain


# --- calibration


def test_ece_equals_the_hand_computed_value():
    # Three rows at confidence 0.9, one of them wrong, and one right row at 0.5: (3 * |0.9 - 2/3| + 1 * |0.5 - 1|) / 4.
    probabilities = np.full((4, 7), 0.1 / 6)
    probabilities[:, 2] = 0.9
    probabilities[3] = [0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0]
    labels = np.array([2, 2, 5, 0])
    assert evaluation.expected_calibration_error(labels, probabilities) == pytest.approx((3 * (0.9 - 2 / 3) + 0.5) / 4)


def test_reliability_curve_puts_every_row_into_the_bin_of_its_confidence():
    labels, logits = drawn_logits(2000)
    probabilities = softmax(logits)
    curve = evaluation.reliability_curve(labels, probabilities, bins=10)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    assert curve["count"].sum() == 2000
    for i in range(10):
        rows = (confidence > i / 10) & (confidence <= (i + 1) / 10)
        assert curve["count"][i] == rows.sum()
        if rows.any():
            assert curve["confidence"][i] == pytest.approx(confidence[rows].mean())
            assert curve["accuracy"][i] == pytest.approx(right[rows].mean())
        else:
            assert np.isnan(curve["confidence"][i])
            assert np.isnan(curve["accuracy"][i])


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    half = np.array([[0.5, 0.25, 0.25, 0, 0, 0, 0]])
    assert evaluation.reliability_curve(np.array([0]), half, bins=2)["count"].tolist() == [1, 0]


def test_full_confidence_falls_into_the_last_bin():
    curve = evaluation.reliability_curve(np.array([1, 2]), surely([1, 2]))
    assert curve["count"].tolist() == [0] * 14 + [2]


def test_fitted_temperature_undoes_overconfidence():
    labels, logits = drawn_logits()
    overconfident = softmax(2.5 * logits)
    temperature = evaluation.fit_temperature(labels, overconfident)
    calibrated = evaluation.apply_temperature(overconfident, temperature)
    assert temperature == pytest.approx(2.5, rel=0.1)
    before, after = (evaluation.expected_calibration_error(labels, p) for p in (overconfident, calibrated))
    assert after < 0.03 < before
    assert np.array_equal(calibrated.argmax(axis=1), overconfident.argmax(axis=1))


def test_fitted_temperature_is_the_one_that_scipy_finds():
    labels, logits = drawn_logits(900, seed=3)
    probabilities = softmax(0.6 * logits)

    def loss(temperature):
        return evaluation.negative_log_likelihood(labels, evaluation.apply_temperature(probabilities, temperature))

    expected = optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-6}).x
    assert evaluation.fit_temperature(labels, probabilities) == pytest.approx(expected, rel=1e-3)


def test_temperature_divides_the_logits():
    _, logits = drawn_logits(50)
    np.testing.assert_allclose(evaluation.apply_temperature(softmax(logits), 1.7), softmax(logits / 1.7), atol=1e-6)
    np.testing.assert_allclose(evaluation.apply_temperature(softmax(logits), 1), softmax(logits), atol=1e-6)


def test_a_probability_rounded_to_zero_costs_a_finite_penalty():
    one_sure_error = evaluation.negative_log_likelihood(np.array([0]), surely([1]))
    assert one_sure_error == pytest.approx(-np.log(1e-7))
    assert np.isfinite(evaluation.apply_temperature(surely([1]), 2)).all()


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_temperature_must_be_positive_and_finite(temperature):
    with pytest.raises(ValueError, match="temperature must be a positive, finite number"):
        evaluation.apply_temperature(surely([1]), temperature)


# --- comparisons


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 6), (40, 40), (300, 240)])
def test_mcnemar_equals_the_exact_binomial_test(only_a, only_b):
    labels = np.zeros(700, dtype=int)
    a, b = np.zeros(700, dtype=int), np.zeros(700, dtype=int)
    b[:only_a] = 1  # b errs here alone
    a[only_a : only_a + only_b] = 1  # a errs here alone
    a[650:], b[650:] = 2, 3  # both err: says nothing about either
    found = evaluation.mcnemar_test(labels, a, b)
    assert (found["only_a"], found["only_b"]) == (only_a, only_b)
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert found["p_value"] == pytest.approx(expected)


def test_group_gap_has_the_interval_printed_by_newcombe_1998():
    labels = np.full(150, 3)
    predictions = np.full(150, 3)
    predictions[:14] = 6  # 56 of 70 right in the first group
    predictions[70:102] = 6  # 48 of 80 right in the second
    found = evaluation.group_gaps(labels, predictions, np.array(["bright"] * 70 + ["dark"] * 80))
    assert (found["best"], found["worst"]) == ("bright", "dark")
    assert found["gap"] == pytest.approx({"value": 0.2, "low": 0.0524, "high": 0.3339}, abs=5e-5)
    low, high = evaluation.wilson_interval(48, 80)
    assert found["groups"]["dark"] == {"n": 80, "accuracy": {"value": 0.6, "low": low, "high": high}}
    assert json.loads(json.dumps(found)) == found


def test_groups_may_hold_any_values_and_lose_no_row():
    labels = np.array([0, 1, 2, 3])
    found = evaluation.group_gaps(labels, labels, np.array([1.5, np.nan, np.nan, 7.0]))
    assert {name: group["n"] for name, group in found["groups"].items()} == {"1.5": 1, "7.0": 1, "nan": 2}


# --- bad input


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], surely([0]), r"probabilities must have shape \(2, 7\), one row per label. Received: \(1, 7\)"),
        ([0], np.full((1, 6), 1 / 6), r"probabilities must have shape \(1, 7\).*Received: \(1, 6\)"),
        ([0, 7], surely([0, 1]), r"labels must be within 0..6. Received: 7 \(row 1\)"),
        ([0, -1], surely([0, 1]), r"labels must be within 0..6. Received: -1 \(row 1\)"),
        ([0.0, 1.0], surely([0, 1]), r"labels must be integers.*Received: float64"),
        (np.eye(7, dtype=int), np.eye(7), r"labels must be integers of shape \(n,\).*Received: int64 of shape \(7, 7\)"),
        (np.zeros(0, dtype=int), np.zeros((0, 7)), r"n >= 1. Received: int64 of shape \(0,\)"),
        ([0, 1], surely([0, 1]) * [[1], [1.01]], r"must sum to 1 within 0.001. Received: a sum of 1.01 \(row 1\)"),
        ([0, 1], surely([0, 1]) * [[1], [0.99]], r"must sum to 1 within 0.001. Received: a sum of 0.99 \(row 1\)"),
        ([0], np.array([[0.5, 0.5, np.nan, 0, 0, 0, 0]]), r"must be numbers >= 0. Received: nan \(row 0\)"),
        ([0], np.array([[1.2, -0.2, 0, 0, 0, 0, 0]]), r"must be numbers >= 0. Received: -0.2 \(row 0\)"),
    ],
)
def test_bad_input_is_refused_with_the_rule_and_the_offender(labels, probabilities, message):
    for function in (evaluation.evaluate, evaluation.negative_log_likelihood, evaluation.fit_temperature):
        with pytest.raises(ValueError, match=message):
            function(np.asarray(labels), probabilities)


def test_bad_predictions_and_groups_are_refused_by_name():
    labels = np.array([0, 1, 2])
    with pytest.raises(ValueError, match=r"predictions must have one entry per label, 3. Received: 2"):
        evaluation.confusion_matrix(labels, labels[:2])
    with pytest.raises(ValueError, match=r"predictions_b must be within 0..6. Received: 9 \(row 2\)"):
        evaluation.mcnemar_test(labels, labels, np.array([0, 1, 9]))
    with pytest.raises(ValueError, match=r"groups must have one entry per label, shape \(3,\). Received: shape \(2,\)"):
        evaluation.group_gaps(labels, labels, np.array(["dark", "light"]))


def test_selective_accuracy_counts_only_the_answers_that_are_given():
    sure, unsure = np.full(7, 0.1 / 6), np.full(7, 0.7 / 6)
    sure[2], unsure[3] = 0.9, 0.3
    probabilities = np.stack([sure, sure, sure, unsure])
    found = evaluation.selective_accuracy(np.array([2, 2, 5, 3]), probabilities, 0.4)
    assert found["answered"]["value"] == 3 / 4
    assert found["accuracy"]["value"] == 2 / 3
    nobody = evaluation.selective_accuracy(np.array([2, 2, 5, 3]), probabilities, 0.95)
    assert nobody["answered"]["value"] == 0 and (nobody["accuracy"]["low"], nobody["accuracy"]["high"]) == (0, 1)
