"""Weights averaged: the point between runs of one kind, its statistics measured anew, a run like any other."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from emotion import averaging
from emotion.recalibration import normalizations
from emotion.training import predict, train
from emotion.training_config import TrainingConfig

CONFIG = TrainingConfig("one", "vgg", {"widths": [4, 8], "convolutions": [1, 1], "dropout": 0.2}, epochs=1)


@pytest.fixture(scope="module")
def runs(drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for config in (
        CONFIG,
        replace(CONFIG, name="two", seed=1),
        replace(CONFIG, name="wide", architecture_options={"widths": [4, 9]}),
    ):
        options = config.architecture_options | {"convolutions": [1, 1]}
        train(replace(config, architecture_options=options), drawn, folder / config.name, verbose=0)
    return folder


def weights(runs, name):
    return keras.saving.load_model(runs / name / "best.keras", compile=False).get_weights()


def test_the_network_has_the_mean_of_the_weights_and_statistics_of_its_own(drawn, runs):
    record = averaging.make_run(["one", "two"], "mean", drawn, runs)
    model = keras.saving.load_model(runs / "mean" / "best.keras", compile=False)
    measured = {id(v) for layer in normalizations(model) for v in (layer.moving_mean, layer.moving_variance)}
    for variable, one, two in zip(model.weights, weights(runs, "one"), weights(runs, "two"), strict=True):
        same = np.allclose(np.array(variable), (one + two) / 2, atol=1e-6)
        assert same != (id(variable) in measured)
    assert record["averaged"] == ["one", "two"] and record["parameters"] == model.count_params()
    assert json.loads((runs / "mean" / "record.json").read_text()) == record
    kept = np.load(runs / "mean" / "private_test.npy")
    assert np.allclose(kept, predict(model, drawn.private_test.images), atol=1e-5)


def test_a_head_with_hidden_units_is_the_first_runs(drawn, tmp_path):
    options = {"weights": None, "input_size": 48, "dense": 8}
    for seed, name in enumerate(("one", "two")):
        config = TrainingConfig(name, "mobilenet_v2", options, epochs=1, batch_size=128, seed=seed)
        train(config, drawn, tmp_path / name, verbose=0)
    record = averaging.make_run(["one", "two"], "mean", drawn, tmp_path)
    assert "the head of one" in record["config"]["note"]
    model, one, two = (keras.saving.load_model(tmp_path / n / "best.keras", compile=False) for n in ("mean", "one", "two"))
    for layer, first, second in zip(model.layers, one.layers, two.layers, strict=True):
        kernels = [x.get_weights()[0] for x in (layer, first, second) if isinstance(x, (layers.Dense, layers.Conv2D))]
        if kernels:
            of_head = isinstance(layer, layers.Dense)
            assert np.allclose(kernels[0], kernels[1] if of_head else (kernels[1] + kernels[2]) / 2, atol=1e-6)


@pytest.mark.parametrize("names", [["one"], ["one", "wide"]])
def test_runs_that_have_no_mean_are_refused_and_named(drawn, runs, names):
    with pytest.raises(ValueError, match=rf"one kind.*{names[-1]} \(vgg\)"):
        averaging.make_run(names, "none", drawn, runs)
    assert not (runs / "none").exists()


def test_a_run_without_weights_is_named(drawn, runs):
    with pytest.raises(FileNotFoundError, match="nobody"):
        averaging.make_run(["one", "nobody"], "none", drawn, runs)
