import os
import subprocess
import sys

import keras
import numpy as np

from emotion.architectures import build
from emotion.fused_norm import FusedBatchNormalization, with_fused_normalization


def two_networks():
    plain = build("vgg", {"widths": (4, 8), "convolutions": (1, 1), "dropout": 0.0})
    fused = with_fused_normalization(plain)
    fused.set_weights(plain.get_weights())
    return plain, fused


def one_step(model, levels, targets):
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="categorical_crossentropy")
    loss = model.train_on_batch(levels, targets)
    return float(loss), model.get_weights()


def test_a_training_step_gives_what_keras_gives():
    plain, fused = two_networks()
    assert any(isinstance(layer, FusedBatchNormalization) for layer in fused.layers)
    rng = np.random.default_rng(0)
    levels = rng.uniform(0, 255, (16, 48, 48, 1)).astype("float32")
    targets = np.eye(7, dtype="float32")[rng.integers(0, 7, 16)]
    (loss, weights), (fused_loss, fused_weights) = one_step(plain, levels, targets), one_step(fused, levels, targets)
    assert abs(loss - fused_loss) < 1e-5
    before = two_networks()[0].get_weights()
    assert any(not np.allclose(w, b) for w, b in zip(weights, before, strict=True))
    for weight, fused_weight in zip(weights, fused_weights, strict=True):
        assert np.allclose(weight, fused_weight, atol=1e-4)


def test_in_serving_and_when_frozen_it_is_keras_own():
    plain, fused = two_networks()
    levels = np.random.default_rng(1).uniform(0, 255, (4, 48, 48, 1)).astype("float32")
    assert np.allclose(plain(levels), fused(levels), atol=1e-6)
    fused.trainable = False
    before = fused.get_weights()
    assert np.allclose(plain(levels), fused(levels, training=True), atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(before, fused.get_weights(), strict=True))


def test_under_jax_the_network_stays_as_it_is():
    code = (
        "from emotion.architectures import build; from emotion.fused_norm import with_fused_normalization as f;"
        "m = build('custom_cnn', {'batch_norm': True}); assert f(m) is m"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_depthwise_convolutions_with_strides_stay_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        fast = with_fused_normalization(build("mobilenet"))
    finally:
        keras.config.set_dtype_policy("float32")
    layers = [layer for layer in fast.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    assert {layer.strides: layer.compute_dtype for layer in layers} == {(1, 1): "bfloat16", (2, 2): "float32"}
