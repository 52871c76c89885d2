from dataclasses import replace

import numpy as np
import pytest

from emotion import cleaning
from emotion.dataset import VOTE_COLUMNS, Split
from emotion.fer_readers import DatasetError


@pytest.fixture
def flawed(drawn):
    """Drawn data with one flaw of each kind in Training; returns (data, reason -> positions)."""
    t = drawn.training
    images, labels, votes = t.images.copy(), t.labels.copy(), t.votes.copy()
    images[0] = drawn.private_test.images[0]
    images[1] = 128
    votes[2] = 0
    votes[2, VOTE_COLUMNS.index("NF")] = 10
    images[4], labels[4] = images[3], (labels[3] + 1) % 7
    images[6], labels[6] = images[5], labels[5]
    expected = {
        "copy of a test picture": [0],
        "blank": [1],
        "not a face (FER+)": [2],
        "copies with different labels": [3, 4],
        "copy of another Training picture": [6],
    }
    return replace(drawn, training=Split(images, labels, t.rows, votes)), expected


def test_each_flaw_is_removed_from_training_for_its_reason_and_nothing_else(flawed):
    data, expected = flawed
    cleaned, removed = cleaning.clean(data)
    found = {}
    for row in removed:
        found.setdefault(row["reason"], []).append(row["position"])
    assert found == expected
    kept = np.setdiff1d(np.arange(len(data.training)), [p for positions in expected.values() for p in positions])
    assert np.array_equal(cleaned.training.images, data.training.images[kept])
    assert cleaned.public_test is data.public_test and cleaned.private_test is data.private_test


def test_no_test_picture_is_left_in_training(flawed):
    cleaned, _ = cleaning.clean(flawed[0])
    tests = {i.tobytes() for split in (cleaned.public_test, cleaned.private_test) for i in split.images}
    assert not tests & {i.tobytes() for i in cleaned.training.images}


def test_a_refit_gets_publictest_without_copies_of_privatetest_and_without_votes(drawn):
    public = drawn.public_test
    images, labels = public.images.copy(), public.labels.copy()
    images[0], images[2], labels[2] = drawn.private_test.images[0], images[1], labels[1]
    images[3] = drawn.training.images[0]  # taken out of Training instead
    data = replace(drawn, public_test=Split(images, labels, public.rows, public.votes))
    kept = cleaning.refittable(data)
    left = np.setdiff1d(np.arange(len(public)), [0, 2])
    assert np.array_equal(kept.images, images[left]) and np.array_equal(kept.labels, labels[left]) and kept.votes is None


def test_the_check_counts_each_flaw(flawed):
    table = {row["check"]: row for row in cleaning.check(flawed[0])}
    assert table["pictures"]["Training"] == 140
    assert table["blank pictures"]["Training"] == 1
    assert table["not a face (FER+)"]["Training"] == 1
    assert table["identical to another picture of the same part"]["Training"] == 4
    assert table["identical to a picture of another part"] == {
        "check": "identical to a picture of another part", "Training": 1, "PublicTest": 0, "PrivateTest": 1}  # fmt: skip
    assert table["identical to a picture with another label"]["Training"] in (2, 3)


def test_unofficial_tests_are_refused_by_name(drawn):
    with pytest.raises(DatasetError, match="PublicTest must have"):
        cleaning.check_official(drawn)


def test_soft_targets_blend_labels_and_votes():
    votes = np.zeros((2, 10), np.float32)
    votes[0, VOTE_COLUMNS.index("happiness")], votes[0, VOTE_COLUMNS.index("neutral")] = 6, 2
    votes[0, VOTE_COLUMNS.index("contempt")] = 2
    votes[1, VOTE_COLUMNS.index("NF")] = 10
    split = Split(np.zeros((2, 48, 48), np.uint8), np.array([6, 4]), np.arange(2), votes)
    expected = np.zeros((2, 7))
    expected[0, 3], expected[0, 6] = 0.5 * 0.75, 0.5 + 0.5 * 0.25
    expected[1, 4] = 1
    assert np.allclose(cleaning.soft_targets(split, 0.5), expected)
    assert np.array_equal(cleaning.soft_targets(split), cleaning.one_hot(split.labels))


def test_soft_targets_without_votes_say_what_is_missing(drawn):
    with pytest.raises(ValueError, match=r"fer2013new\.csv"):
        cleaning.soft_targets(replace(drawn.training, votes=None), 0.5)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        cleaning.soft_targets(drawn.training, 1.5)


def test_class_weights_give_each_class_the_same_total():
    labels = np.array([0] * 90 + [1] * 9 + [2])
    weights = cleaning.class_weights(labels)
    totals = np.bincount(labels, weights[labels], minlength=7)
    assert np.allclose(totals[:3], 100 / 7) and weights[5] == 0


def test_balanced_sampling_draws_each_class_about_equally():
    labels = np.array([0] * 9000 + [1] * 900 + [2] * 100)
    drawn = labels[cleaning.balanced_indices(labels, np.random.default_rng(0))]
    assert len(drawn) == len(labels)
    assert np.abs(np.bincount(drawn) / len(labels) - 1 / 3).max() < 0.03
