"""Contracts of the body made from published weights: read whole or refused, and no answer changed by what is restored."""

import json

import keras
import numpy as np
import pytest

from emotion.architectures import build
from emotion.face_body import fill, make_body, read_weights, restore_statistics
from emotion.transfer import body_layers


def publish(folder, weights, kept_as="float16"):
    entries = [
        {"name": name, "shape": list(array.shape), "dtype": "float32", "quantization": {"dtype": kept_as}}
        for name, array in weights.items()
    ]
    manifest = [{"paths": ["model.bin"], "weights": entries}]
    (folder / "model.json").write_text(json.dumps({"weightsManifest": manifest}), encoding="utf-8")
    (folder / "model.bin").write_bytes(b"".join(array.astype(kept_as).tobytes() for array in weights.values()))
    return folder / "model.json"


def published(model):
    """Random weights with the names and shapes under which a MobileNet is published."""
    rng, weights = np.random.default_rng(0), {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            weights[f"{layer.name}/depthwise_kernel"] = rng.normal(size=layer.kernel.shape) / 3
        elif isinstance(layer, keras.layers.Conv2D):
            shape = layer.kernel.shape
            weights[f"{layer.name}/convolution/merged_input"] = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        elif isinstance(layer, keras.layers.BatchNormalization):
            if "_dw_" in layer.name:
                weights[f"{layer.name}/batchnorm_1/mul"] = rng.uniform(0.5, 1.5, layer.gamma.shape)
            weights[f"{layer.name}/batchnorm_1/sub"] = rng.normal(size=layer.gamma.shape)
    return {name: array.astype(np.float16).astype(np.float32) for name, array in weights.items()}


def small_network():
    inputs = keras.Input((48, 48, 1))
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv1")(inputs)
    x = keras.layers.BatchNormalization(name="conv1_bn")(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=False, name="conv_dw_1")(keras.layers.ReLU(6)(x))
    return keras.Model(inputs, keras.layers.BatchNormalization(name="conv_dw_1_bn")(x))


def body_of(model):
    return keras.Model(model.input, body_layers(model)[-1].output)


@pytest.fixture(scope="module")
def faces():
    return np.random.default_rng(1).integers(0, 256, (24, 48, 48), dtype=np.uint8)


@pytest.mark.parametrize("kept_as", ["float16", "float32"])
def test_published_weights_are_read_as_they_were_written(tmp_path, kept_as):
    weights = published(small_network())
    found = read_weights(publish(tmp_path, weights, kept_as))
    assert list(found) == list(weights)
    assert all(found[name].dtype == np.float32 and np.array_equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("change", [lambda content: content[:-2], lambda content: content + b"ab"])
def test_a_file_of_another_length_is_refused(tmp_path, change):
    path = publish(tmp_path, published(small_network()))
    file = tmp_path / "model.bin"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ValueError, match=r"model.bin must (hold|end) .* Received: \d+"):
        read_weights(path)


@pytest.mark.parametrize("text", ["no JSON", "{}", "[]"])
def test_what_is_no_such_model_is_refused(tmp_path, text):
    (tmp_path / "model.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="must list its weights and their files. Received: .*model.json"):
        read_weights(tmp_path / "model.json")


def test_a_missing_weight_is_named():
    model = small_network()
    weights = published(model)
    del weights["conv_dw_1/depthwise_kernel"]
    with pytest.raises(ValueError, match="Missing: conv_dw_1/depthwise_kernel"):
        fill(model, weights)


def test_restored_statistics_are_those_of_the_pictures_and_change_no_answer(faces):
    model = small_network()
    fill(model, published(model))
    x = faces[..., None].astype(np.float32)
    before = np.asarray(model(x))
    restore_statistics(model, faces, batch_size=7)
    assert np.allclose(before, model(x), atol=1e-3 * np.abs(before).max())
    norm = model.get_layer("conv_dw_1_bn")
    seen = np.asarray(keras.Model(model.input, norm.input)(x))
    assert np.allclose(norm.moving_mean, seen.mean(axis=(0, 1, 2)), rtol=1e-3)
    assert np.allclose(norm.moving_variance, seen.var(axis=(0, 1, 2)), rtol=1e-3)


def test_a_body_answers_as_the_published_network_and_says_where_it_is_from(tmp_path, faces):
    expected = build("mobilenet")
    path = publish(tmp_path, published(expected))
    fill(body_of(expected), read_weights(path))
    record = make_body(path, faces, tmp_path / "body")
    network = build("mobilenet", {"weights": str(tmp_path / "body" / "body.npz")})
    x = faces[:4, ..., None].astype(np.float32)
    before, after = np.asarray(body_of(expected)(x)), np.asarray(body_of(network)(x))
    assert before.std() > 0 and np.allclose(before, after, atol=0.01 * np.abs(before).max())
    assert record == json.loads((tmp_path / "body" / "record.json").read_text(encoding="utf-8"))
    assert record["source"]["package"] and record["body"]["bytes"] == (tmp_path / "body" / "body.npz").stat().st_size


def test_weights_of_imagenet_are_refused():
    with pytest.raises(ValueError, match="must be None or a path"):
        build("mobilenet", {"weights": "imagenet"})
