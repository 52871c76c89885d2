"""Contracts of emotion/activation.py, and its maps against Grad-CAM computed with gradients."""

import keras
import numpy as np
import pytest
from keras import layers

from emotion.activation import with_activation_map
from emotion.architectures import build
from emotion.explain import activation_map
from emotion.export import synthetic_faces
from emotion.labels import EMOTIONS


@pytest.fixture(scope="module")
def model():
    """A small residual network that can tell drawn faces apart a little, so that its maps are not noise."""
    keras.utils.set_random_seed(0)
    network = build("se_resnet", {"widths": (8, 16, 24, 32), "blocks": (1, 1, 1, 1), "first_stride": 1})
    faces, labels = synthetic_faces(448, seed=1)
    network.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    network.fit(faces[..., None].astype("float32"), labels, batch_size=32, epochs=2, verbose=0)
    network.layers[-1].bias.assign(np.linspace(-1, 1, 7))  # so that a forgotten bias shows
    return network


@pytest.fixture(scope="module")
def grey():
    return synthetic_faces(20, seed=2)[0][..., None].astype("float32")


@pytest.fixture(scope="module")
def answers(model, grey):
    """Probabilities (20, 7) and evidence (20, 6, 6, 7) of the model with a map."""
    return with_activation_map(model).predict(grey, verbose=0)


def grad_cam_by_tape(model, features, grey):
    """Grad-CAM of every class as Keras' own example computes it, before rectifying: (n, h, w, 7)."""
    import tensorflow as tf

    linear = keras.models.clone_model(model)
    linear.set_weights(model.get_weights())
    linear.layers[-1].activation = keras.activations.linear
    network = keras.Model(linear.inputs[0], [features(linear), linear.outputs[0]])
    maps = []
    with tf.GradientTape(persistent=True) as tape:
        features, scores = network(grey, training=False)
        of_class = tf.unstack(scores, axis=1)
    for score in of_class:
        weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2), keepdims=True)
        maps.append(tf.reduce_sum(features * weights, axis=-1).numpy())
    return np.stack(maps, axis=-1)


@pytest.fixture(scope="module")
def grad_cams(model, grey):
    return grad_cam_by_tape(model, lambda network: network.get_layer("activation_map").output, grey)


def test_probabilities_stay_the_same_and_the_evidence_has_a_place_for_each_cell_of_the_last_features(model, grey, answers):
    probabilities, evidence = answers
    assert np.array_equal(probabilities, model.predict(grey, verbose=0))
    assert evidence.shape == (20, 6, 6, 7) and evidence.dtype == np.float32


def test_the_mean_of_the_evidence_plus_the_bias_gives_the_probabilities(model, answers):
    probabilities, evidence = answers
    scores = evidence.mean(axis=(1, 2)) + np.array(model.layers[-1].bias)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    assert np.abs(powers / powers.sum(axis=1, keepdims=True) - probabilities).max() < 1e-5


def test_evidence_is_that_of_grad_cam_on_20_faces(answers, grad_cams):
    for ours, theirs in zip(answers[1], grad_cams, strict=True):
        for index in range(7):
            assert np.corrcoef(ours[..., index].ravel(), theirs[..., index].ravel())[0, 1] > 0.999


def test_heat_maps_are_those_of_grad_cam_on_20_faces(answers, grad_cams):
    compared = 0
    for ours, theirs in zip(answers[1], np.maximum(grad_cams, 0), strict=True):
        for index, emotion in enumerate(EMOTIONS):
            heat = activation_map(ours, emotion)
            assert heat.any() == theirs[..., index].any()
            if heat.any():
                cells = heat.reshape(6, 8, 6, 8)[:, 3:5, :, 3:5].mean(axis=(1, 3))  # what stands in the middle of each cell
                assert np.corrcoef(cells.ravel(), theirs[..., index].ravel())[0, 1] > 0.99
                compared += 1
    assert compared >= 20


def test_the_model_can_be_saved_and_loaded(model, grey, tmp_path):
    mapped = with_activation_map(model)
    assert mapped.input_shape == model.input_shape  # and not a list of one shape
    for name in ("model.keras", "model.h5"):
        mapped.save(tmp_path / name)
        loaded = keras.models.load_model(tmp_path / name, compile=False)
        for before, after in zip(mapped.predict(grey, verbose=0), loaded.predict(grey, verbose=0), strict=True):
            assert np.allclose(before, after, atol=1e-6)


def test_dropout_is_optional_and_the_network_may_be_sequential(grey):
    tail = [layers.GlobalAveragePooling2D(), layers.Dense(7, activation="softmax")]
    network = keras.Sequential([keras.Input((48, 48, 1)), layers.Rescaling(1 / 255), layers.Conv2D(4, 3, strides=4), *tail])
    probabilities, evidence = with_activation_map(network).predict(grey, verbose=0)
    assert np.array_equal(probabilities, network.predict(grey, verbose=0)) and evidence.shape == (20, 12, 12, 7)


def test_networks_that_end_otherwise_are_refused_with_the_rule(model):
    rule = "must end in GlobalAveragePooling2D, perhaps Dropout, and Dense with softmax. Received: "
    with pytest.raises(ValueError, match=rule + "custom_cnn, which ends in .*Dense"):
        with_activation_map(build("custom_cnn"))
    body = [keras.Input((48, 48, 1)), layers.Conv2D(4, 3)]
    endings = {
        "linear": [layers.GlobalAveragePooling2D(), layers.Dense(7)],
        "hidden": [layers.GlobalAveragePooling2D(), layers.Dense(9), layers.Dense(7, activation="softmax")],
        "maximum": [layers.GlobalMaxPooling2D(), layers.Dense(7, activation="softmax")],
    }
    for name, ending in endings.items():
        with pytest.raises(ValueError, match=rule + name):
            with_activation_map(keras.Sequential(body + ending, name=name))
    with pytest.raises(ValueError, match=rule):
        with_activation_map(with_activation_map(model))
