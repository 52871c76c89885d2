"""Depthwise convolutions as sums of shifted pictures give what Keras gives, forwards and backwards."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion.architectures import build
from emotion.shifted_depthwise import ShiftedDepthwiseConv2D, with_shifted_depthwise


@pytest.mark.parametrize("size", [9, 10])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_answers_and_gradients_are_those_of_keras(size, strides, padding):
    settings = {"kernel_size": 3, "strides": strides, "padding": padding, "activation": "tanh"}
    plain, shifted = keras.layers.DepthwiseConv2D(**settings), ShiftedDepthwiseConv2D(**settings)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, size, size, 5)).astype(np.float32))
    plain.build(x.shape)
    shifted.build(x.shape)
    shifted.set_weights(plain.get_weights())
    found = []
    for layer in (plain, shifted):
        with tf.GradientTape() as tape:
            tape.watch(x)
            answer = layer(x)
            total = tf.reduce_sum(answer**2)
        found.append([answer, *tape.gradient(total, [x, layer.kernel])])
    assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(*found, strict=True))


def test_a_network_keeps_its_answers_and_its_weights_in_order():
    plain = build("mobilenet", {"input_size": 48})
    shifted = with_shifted_depthwise(plain)
    assert sum(isinstance(layer, ShiftedDepthwiseConv2D) for layer in shifted.layers) == 13
    assert all(np.array_equal(a, b) for a, b in zip(plain.get_weights(), shifted.get_weights(), strict=True))
    x = np.random.default_rng(1).uniform(0, 255, (2, 48, 48, 1)).astype(np.float32)
    assert np.allclose(plain(x), shifted(x), atol=1e-5)


def test_a_network_without_any_comes_back_itself():
    model = build("vgg", {"widths": (4, 8), "convolutions": (1, 1)})
    assert with_shifted_depthwise(model) is model
