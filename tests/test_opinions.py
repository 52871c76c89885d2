"""Opinions on Training labels: formed without the label in question, by the labels' own rules."""

from dataclasses import replace

import numpy as np
import pytest

from emotion import cleaning, opinions
from emotion.dataset import VOTES_OF_EMOTION, Split
from emotion.training import train
from emotion.training_config import TrainingConfig

TINY = {"widths": [8, 16], "convolutions": [1, 1]}
CONFIG = TrainingConfig("opinions", architecture="vgg", architecture_options=TINY, epochs=1, batch_size=32)


def voted(truth: np.ndarray, labels: np.ndarray) -> Split:
    """Pictures of nothing whose ten taggers agree on the truth."""
    votes = np.zeros((len(truth), 10), np.float32)
    votes[np.arange(len(truth)), np.array(VOTES_OF_EMOTION)[truth]] = 10
    return Split(np.zeros((len(truth), 48, 48), np.uint8), labels, np.arange(len(truth)), votes)


def test_each_picture_is_left_out_of_one_fold():
    times = sum(opinions.left_out(1003, fold).astype(int) for fold in range(opinions.FOLDS))
    assert (times == 1).all()


def test_opinions_are_the_shares_that_labels_have_among_pictures_voted_alike():
    """Where taggers see fear (2), labels here say surprise (5) in three of ten cases: so does the opinion on each of them."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, 4200)
    labels = np.where((truth == 2) & (rng.random(4200) < 0.3), 5, truth)
    formed = opinions.form(voted(truth, labels))
    assert formed.shape == (4200, 7)
    np.testing.assert_allclose(formed.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(formed[truth == 2].mean(axis=0)[[2, 5]], [0.7, 0.3], atol=0.05)
    # The label itself is not looked at: pictures voted alike are thought of alike, whatever their labels are.
    fear, surprise = formed[(truth == 2) & (labels == 2)], formed[(truth == 2) & (labels == 5)]
    np.testing.assert_allclose(fear.mean(axis=0), surprise.mean(axis=0), atol=0.02)


def test_answers_of_networks_are_listened_to_as_well():
    rng = np.random.default_rng(1)
    labels, nothing = rng.integers(0, 7, 2100), rng.integers(0, 7, 2100)
    answers = np.full((2100, 7), 0.05, np.float32)
    answers[np.arange(2100), labels] = 0.7
    with_answers, without = opinions.form(voted(nothing, labels), answers), opinions.form(voted(nothing, labels))
    assert np.mean(with_answers.argmax(axis=1) == labels) > 0.95
    assert np.mean(without.argmax(axis=1) == labels) < 0.3


def test_a_fold_answers_for_what_it_has_not_seen_and_all_folds_for_everything(drawn, tmp_path):
    data = replace(drawn, training=drawn.training)
    count = len(cleaning.clean(data)[0].training)
    with pytest.raises(FileNotFoundError, match="--fold 0"):
        opinions.read_folds(count, tmp_path)
    for fold in range(opinions.FOLDS):
        answers = opinions.ask_fold(CONFIG, data, fold, tmp_path, verbose=0)
        assert answers.shape == (opinions.left_out(count, fold).sum(), 7)
        assert not (tmp_path / f"fold_{fold}" / "checkpoint.npz").exists()
    read = opinions.read_folds(count, tmp_path)
    np.testing.assert_allclose(read[opinions.left_out(count, 3)], answers, atol=1e-3)
    np.testing.assert_allclose(read.sum(axis=1), 1, atol=5e-3)
    with pytest.raises(ValueError, match="folds must be of 40 pictures"):
        opinions.read_folds(40, tmp_path)


def test_a_run_blends_them_in_and_says_what_is_missing(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(opinions, "FOLDER", tmp_path)
    training = cleaning.clean(drawn)[0].training
    config = replace(CONFIG, label_share=0.25, opinions="votes")
    with pytest.raises(FileNotFoundError, match="emotion.opinions --name votes"):
        train(config, drawn, tmp_path / "run", verbose=0)
    np.save(tmp_path / "votes.npy", np.full((len(training), 7), 1 / 7, np.float16))
    blended = opinions.blend(training, "votes", 0.25)
    np.testing.assert_allclose(blended[np.arange(len(training)), training.labels], 0.25 + 0.75 / 7, atol=1e-3)
    assert train(config, drawn, tmp_path / "run", verbose=0)["config"]["opinions"] == "votes"
    np.save(tmp_path / "votes.npy", np.full((3, 7), 1 / 7, np.float16))
    with pytest.raises(ValueError, match="opinions must be of the pictures fitted"):
        opinions.blend(training, "votes", 0.25)


@pytest.mark.parametrize("changes", [{"label_share": 1.0}, {"clean": False}])
def test_settings_that_leave_them_no_say_are_refused(changes):
    with pytest.raises(ValueError, match="opinions are of the cleaned pictures"):
        replace(CONFIG, **{"opinions": "votes", "label_share": 0.5, **changes})
