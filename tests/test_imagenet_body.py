"""Contracts of the body made from published ImageNet weights: every layer finds its own, and answers as the published network."""

import keras
import numpy as np
import pytest

from emotion.architectures import build
from emotion.imagenet_body import PUBLISHED_EPSILON, fill, published_name
from emotion.transfer import body_layers


@pytest.fixture(scope="module")
def network():
    return build("resnet50", {"weights": None})


def published(model):
    """Random weights with the names and shapes under which ResNet50 is published."""
    rng, weights = np.random.default_rng(0), {}
    for layer in body_layers(model):
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.BatchNormalization)):
            for variable in layer.weights:
                name = f"{published_name(layer.name)}/{variable.name}"
                weights[name] = rng.uniform(0.5, 1.5, variable.shape).astype(np.float32)
    return weights


def test_published_names_are_those_of_the_authors():
    names = ("conv1_conv", "conv1_bn", "conv2_block1_0_conv", "conv3_block4_2_bn", "conv5_block3_3_conv")
    assert [published_name(name) for name in names] == ["conv1", "bn_conv1", "res2a_branch1", "bn3d_branch2b", "res5c_branch2c"]
    with pytest.raises(ValueError, match="Received: conv2_block1_out"):
        published_name("conv2_block1_out")


def test_every_layer_gets_its_weights_and_answers_as_the_published_one(network):
    weights = published(network)
    assert len(weights) == 318
    fill(network, weights)
    kernel = network.get_layer("conv4_block6_2_conv").kernel
    assert np.array_equal(kernel, weights["res4f_branch2b/kernel"])
    norm, x = network.get_layer("conv5_block1_0_bn"), np.linspace(-2, 2, 2048, dtype=np.float32).reshape(1, 1, 1, 2048)
    gamma, beta, mean, variance = (
        weights[f"bn5a_branch1/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    expected = gamma * (x - mean) / np.sqrt(variance + PUBLISHED_EPSILON) + beta
    assert np.allclose(norm(x, training=False), expected, atol=1e-5)


def test_a_missing_weight_is_named(network):
    weights = published(network)
    del weights["res3c_branch2a/bias"]
    with pytest.raises(ValueError, match="Missing: res3c_branch2a/bias"):
        fill(network, weights)
