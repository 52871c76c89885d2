"""A second head that learns FER+ votes: both losses count, the body learns from both, and nothing of it is saved."""

import csv
from dataclasses import replace

import keras
import numpy as np
import pytest

from emotion import cleaning, fitting
from emotion.batches import batches
from emotion.recalibration import recalibrate
from emotion.training import train
from emotion.training_config import Stage, TrainingConfig
from emotion.vote_head import LabelAndVoteLoss, accuracy, vote_shares

TINY = {"widths": [8, 16, 32], "convolutions": [1, 1, 1]}
VGG = TrainingConfig("votes", architecture="vgg", architecture_options=TINY, epochs=2, batch_size=32, vote_head=0.5)


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise Killed


def fit(config, data, folder, callbacks=()):
    folder.mkdir(exist_ok=True)
    targets = cleaning.soft_targets(data.training)
    if config.vote_head:
        targets = np.concatenate([targets, vote_shares(data.training)], axis=1)
    return fitting.fit(config, data.training.images, targets, data.public_test, folder, 0, callbacks)


def test_the_loss_is_that_of_the_label_and_a_share_of_that_of_the_votes():
    rng = np.random.default_rng(0)
    label, votes = np.eye(7, dtype=np.float32)[[2, 5]], rng.dirichlet(np.ones(10), 2).astype(np.float32)
    answer, told = rng.dirichlet(np.ones(7), 2).astype(np.float32), rng.dirichlet(np.ones(10), 2).astype(np.float32)
    both = np.concatenate([label, votes], axis=1), np.concatenate([answer, told], axis=1)
    smooth = label * 0.9 + 0.1 / 7
    expected = np.mean(-(smooth * np.log(answer)).sum(axis=1) - 0.3 * (votes * np.log(told)).sum(axis=1))
    assert float(LabelAndVoteLoss(0.3, label_smoothing=0.1)(*both)) == pytest.approx(expected, rel=1e-5)
    right = answer.argmax(axis=1) == [2, 5]
    assert np.asarray(accuracy(*both)).tolist() == right.tolist()


def test_a_run_saves_the_network_alone_and_its_history_speaks_of_labels(drawn, tmp_path):
    config = replace(VGG, epochs=20, learning_rate=0.003)
    train(config, drawn, tmp_path / "run", verbose=0)
    saved = keras.saving.load_model(tmp_path / "run" / "best.keras", compile=False)
    plain = fitting.build(config.architecture, config.architecture_options)
    assert saved.output_shape == (None, 7)
    assert [w.shape for w in saved.get_weights()] == [w.shape for w in plain.get_weights()]
    with (tmp_path / "run" / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert float(history[-1]["accuracy"]) > 0.5  # of seven kinds of face, a chance is 0.14


def test_votes_teach_the_body_what_labels_do_not(drawn, tmp_path):
    """All labels alike: they alone teach nothing of the faces, while the votes tell them apart."""
    alike = replace(drawn, training=replace(drawn.training, labels=np.zeros_like(drawn.training.labels)))
    with_votes = fit(replace(VGG, epochs=20, learning_rate=0.003, vote_head=1.0), alike, tmp_path / "with")[1].core
    without = fit(replace(VGG, epochs=20, learning_rate=0.003, vote_head=0.0), alike, tmp_path / "without")[1].core

    def spread(model) -> float:
        """How far apart the classes' mean features lie, against the spread within a class."""
        recalibrate(model, drawn.training.images)
        body = fitting.split(model)[0]
        features = fitting.predict(body, drawn.training.images)
        of_class = [features[drawn.training.labels == label] for label in range(7)]
        within = np.mean([f.var(axis=0) for f in of_class])
        return float(np.var([f.mean(axis=0) for f in of_class], axis=0).mean() / within)

    assert spread(with_votes) > 2 * spread(without)


def test_a_killed_run_goes_on_with_its_second_head(drawn, tmp_path):
    whole = fit(VGG, drawn, tmp_path / "whole")[0]
    with pytest.raises(Killed):
        fit(VGG, drawn, tmp_path / "killed", [Kill()])
    resumed = fit(VGG, drawn, tmp_path / "killed")[0]
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_class_weights_go_by_the_labels_not_by_the_votes():
    targets = np.zeros((4, 17), np.float32)
    targets[[0, 1, 2, 3], [0, 0, 0, 6]] = 0.6  # blended labels, less sure than ...
    targets[:, 7 + 9] = 1.0  # ... the taggers, who see no face at all
    stream = batches(np.zeros((4, 48, 48), np.uint8), targets, replace(VGG, batch_size=4, balance="class_weight"))
    _, y, weights = next(stream)
    rare = y[:, 6] > 0
    assert rare.sum() == 1
    assert weights[rare][0] == pytest.approx(3 * weights[~rare][0])


def test_a_data_set_without_votes_is_refused(drawn, tmp_path):
    without = replace(drawn, training=replace(drawn.training, votes=None))
    with pytest.raises(ValueError, match="needs FER\\+ votes: put fer2013new.csv"):
        train(VGG, without, tmp_path / "run", verbose=0)


@pytest.mark.parametrize(
    "changes", [{"stages": [Stage(0, 0, 0.1)]}, {"distillation": {"teachers": ["other"]}}, {"vote_head": -1}]
)
def test_settings_that_leave_it_nothing_to_learn_with_are_refused(changes):
    with pytest.raises(ValueError, match="vote_head|vote head"):
        replace(VGG, **changes)
