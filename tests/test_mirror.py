import keras
import numpy as np
import pytest

from emotion.activation import with_activation_map
from emotion.architectures import build
from emotion.mirror import with_mirror


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    model = build("vgg", {"widths": (4, 8), "convolutions": (1, 1)})
    model.layers[-1].bias.assign(np.linspace(-1, 1, 7))
    return model


@pytest.fixture(scope="module")
def grey():
    return np.random.default_rng(1).uniform(0, 255, (4, 48, 48, 1)).astype("float32")


def test_a_face_and_its_mirror_image_get_the_same_answer_and_the_bare_network_tells_them_apart(network, grey):
    mirrored = with_mirror(network)
    np.testing.assert_allclose(mirrored.predict(grey, verbose=0), mirrored.predict(grey[:, :, ::-1], verbose=0), atol=1e-6)
    assert np.abs(network.predict(grey, verbose=0) - network.predict(grey[:, :, ::-1], verbose=0)).max() > 1e-3


def test_the_answer_is_the_softmax_of_the_mean_logits(network, grey):
    logs = np.log(network.predict(grey, verbose=0)) + np.log(network.predict(grey[:, :, ::-1], verbose=0))
    expected = np.exp(logs / 2)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(with_mirror(network).predict(grey, verbose=0), expected, atol=1e-6)


def test_the_evidence_still_adds_up_to_the_probabilities(network, grey):
    probabilities, evidence = with_mirror(with_activation_map(network)).predict(grey, verbose=0)
    logits = evidence.mean(axis=(1, 2)) + np.array(network.layers[-1].bias)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_both_ways_to_mirror_are_the_same(network, grey):
    by_layers, by_operation = (with_mirror(network, portable=portable).predict(grey, verbose=0) for portable in (True, False))
    np.testing.assert_allclose(by_layers, by_operation, atol=1e-6)
