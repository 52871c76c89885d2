import keras
import numpy as np
import pytest

from emotion.activation import with_activation_map
from emotion.architectures import build
from emotion.looks import LOOKS, Look, _seen, with_looks


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    model = build("vgg", {"widths": (4, 8), "convolutions": (1, 1)})
    model.layers[-1].bias.assign(np.linspace(-1, 1, 7))
    return model


@pytest.fixture(scope="module")
def grey():
    return np.random.default_rng(1).uniform(0, 255, (4, 48, 48, 1)).astype("float32")


def seen(pictures, look, portable=True):
    inputs = keras.Input(pictures.shape[1:])
    return keras.Model(inputs, keras.layers.Identity()(_seen(inputs, look, portable))).predict(pictures, verbose=0)


def test_a_face_and_its_mirror_image_get_the_same_answer_and_the_bare_network_tells_them_apart(network, grey):
    twice = with_looks(network, 2)
    np.testing.assert_allclose(twice.predict(grey, verbose=0), twice.predict(grey[:, :, ::-1], verbose=0), atol=1e-6)
    assert np.abs(network.predict(grey, verbose=0) - network.predict(grey[:, :, ::-1], verbose=0)).max() > 1e-3


@pytest.mark.parametrize("count", LOOKS)
def test_the_answer_is_the_softmax_of_the_mean_logits(network, grey, count):
    logs = [np.log(network.predict(seen(grey, look), verbose=0)) for look in LOOKS[count]]
    assert len(logs) == count
    expected = np.exp(np.mean(logs, axis=0))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(with_looks(network, count).predict(grey, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_the_evidence_still_adds_up_to_the_probabilities(network, grey, count):
    probabilities, evidence = with_looks(with_activation_map(network), count).predict(grey, verbose=0)
    logits = evidence.mean(axis=(1, 2)) + np.array(network.layers[-1].bias)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_both_ways_to_look_are_the_same(network, grey, count):
    by_layers, by_operation = (with_looks(network, count, portable=p).predict(grey, verbose=0) for p in (True, False))
    np.testing.assert_allclose(by_layers, by_operation, atol=1e-6)


@pytest.mark.parametrize("portable", [True, False])
def test_a_look_mirrors_and_resizes_about_the_centre_and_repeats_the_edge(portable):
    place = np.arange(48, dtype=np.float32)
    ramp = np.broadcast_to(place[None, :, None] * 100 + place[None, None, :], (1, 48, 48))[..., None].copy()
    np.testing.assert_allclose(seen(ramp, Look(mirror=True), portable), ramp[:, :, ::-1], atol=1e-3)
    nearer = seen(ramp, Look(size=2), portable)[0, :, :, 0]  # rows and columns 11.75 to 35.25
    assert nearer[0, 0] == pytest.approx(11.75 * 101, rel=1e-5) and nearer[-1, -1] == pytest.approx(35.25 * 101, rel=1e-5)
    further = seen(ramp, Look(size=0.5), portable)[0, :, :, 0]  # the picture fills the middle half
    assert (further[:12, :12] == 0).all() and further[-1, -1] == 47 * 101
    assert further[12, 24] == pytest.approx(50 + 24.5, abs=1e-2)


def test_another_number_of_looks_is_refused(network):
    with pytest.raises(ValueError, match="one of 1, 2, 4. Received: 3"):
        with_looks(network, 3)
