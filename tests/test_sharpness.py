"""Sharpness-aware steps: the gradient is taken where the loss is worst nearby, and everything else is as in a plain step."""

import csv
from dataclasses import replace

import keras
import numpy as np
import pytest

from emotion.sharpness import SharpnessAwareModel
from emotion.training import train
from emotion.training_config import TrainingConfig

TINY = {"widths": [8, 16, 32], "convolutions": [1, 1, 1]}
CONFIG = TrainingConfig("sharp", architecture="vgg", architecture_options=TINY, epochs=2, batch_size=32, sharpness=0.1)


def line(kind=keras.Model, rho: float = 0.0, rate: float = 0.1) -> keras.Model:
    """One weight, w = 2, fitted to answer 0 for 1: its loss is w^2."""
    inputs = keras.Input((1,))
    model = kind(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    model.rho = rho
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="mse")
    model.set_weights([np.full((1, 1), 2.0, np.float32)])
    return model


def step(model: keras.Model) -> float:
    model.fit(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32), batch_size=4, verbose=0)
    return float(model.get_weights()[0][0, 0])


def test_a_step_follows_the_gradient_of_the_raised_weight():
    # The slope of w^2 is 2 w: at 2 + 0.5 it is 5, and the step 0.1 x 5 begins at 2.
    assert step(line(SharpnessAwareModel, rho=0.5)) == pytest.approx(1.5)
    assert step(line()) == pytest.approx(1.6)


def test_all_gradients_are_one_vector():
    inputs = keras.Input((1,))
    layers = [keras.layers.Dense(1, use_bias=False)(inputs) for _ in range(2)]
    model = SharpnessAwareModel(inputs, keras.layers.Add()(layers))
    model.rho = 2**0.5
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    model.set_weights([np.ones((1, 1), np.float32)] * 2)
    # Both climb by 1, to an answer of 4, whose slope is 8 in each of them.
    assert step(model) == pytest.approx(1 - 0.8)


def test_batch_normalisation_counts_a_batch_once():
    def moved(kind, rho):
        inputs = keras.Input((3,))
        model = kind(inputs, keras.layers.Dense(1)(keras.layers.BatchNormalization(momentum=0.5)(inputs)))
        model.rho = rho
        model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
        model.fit(np.full((4, 3), 8.0, np.float32), np.zeros((4, 1), np.float32), batch_size=4, verbose=0)
        return model.layers[1].moving_mean

    np.testing.assert_allclose(np.array(moved(SharpnessAwareModel, 0.1)), np.array(moved(keras.Model, 0.0)), rtol=1e-6)


def test_a_run_fits_so_and_saves_a_plain_network(drawn, tmp_path):
    config = replace(CONFIG, epochs=20, learning_rate=0.003)
    train(config, drawn, tmp_path / "run", verbose=0)
    saved = keras.saving.load_model(tmp_path / "run" / "best.keras", compile=False)
    assert type(saved) is not SharpnessAwareModel
    with (tmp_path / "run" / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert float(history[-1]["accuracy"]) > 0.5  # of seven kinds of face, a chance is 0.14


def test_a_negative_length_is_refused():
    with pytest.raises(ValueError, match="sharpness must not be negative"):
        replace(CONFIG, sharpness=-0.1)
