"""Contracts of bodies made from published weights: read whole or refused, and answering as the published network."""

import json
import pickle

import keras
import numpy as np
import pytest

from emotion.architectures import build
from emotion.published import (
    BODIES,
    MOVENET_BACKBONE,
    RESNET50_EPSILON,
    TORCH_MEANS,
    TORCH_SPREADS,
    fill,
    make_body,
    resnet50_name,
    restore_statistics,
)
from emotion.published_files import read_weights
from emotion.transfer import body_layers

MOBILENET = BODIES["mobilenet_faces"]


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


def test_weights_in_eight_bits_are_scaled_and_a_manifest_alone_is_read(tmp_path):
    kept = {"dtype": "uint8", "scale": 0.25, "min": -3.0}
    entries = [{"name": "a", "shape": [2, 2], "dtype": "float32", "quantization": kept},
               {"name": "b", "shape": [1], "dtype": "float32"}]  # fmt: skip
    (tmp_path / "model.json").write_text(json.dumps([{"paths": ["one.bin", "two.bin"], "weights": entries}]), encoding="utf-8")
    (tmp_path / "one.bin").write_bytes(bytes([0, 1, 4]))
    (tmp_path / "two.bin").write_bytes(bytes([255]) + np.float32(1.5).tobytes())
    found = read_weights(tmp_path / "model.json")
    assert found["a"].tolist() == [[-3.0, -2.75], [-2.0, 60.75]] and found["b"].tolist() == [1.5]


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


def run():
    pytest.fail("code of the pickle ran")


class Runs:
    def __reduce__(self):
        return run, ()


@pytest.mark.parametrize("content", [{"a": Runs()}, {"a": "text"}, [np.zeros(2)], {"a": np.array(["text"])}, None])
def test_a_pickle_of_anything_but_arrays_is_refused_and_runs_nothing(tmp_path, content):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"" if content is None else pickle.dumps(content))
    with pytest.raises(ValueError, match=r"model.ckpt must hold arrays in dictionaries and nothing else. Received: "):
        read_weights(path)


def test_a_missing_weight_is_named():
    model = small_network()
    weights = published(model)
    del weights["conv_dw_1/depthwise_kernel"]
    with pytest.raises(ValueError, match="Missing: conv_dw_1/depthwise_kernel"):
        fill(model, weights, MOBILENET)


def test_restored_statistics_are_those_of_the_pictures_and_change_no_answer(faces):
    model = small_network()
    fill(model, published(model), MOBILENET)
    x = faces[..., None].astype(np.float32)
    before = np.asarray(model(x))
    restore_statistics(model, faces, batch_size=7)
    assert np.allclose(before, model(x), atol=1e-3 * np.abs(before).max())
    norm = model.get_layer("conv_dw_1_bn")
    seen = np.asarray(keras.Model(model.input, norm.input)(x))
    assert np.allclose(norm.moving_mean, seen.mean(axis=(0, 1, 2)), rtol=1e-3)
    assert np.allclose(norm.moving_variance, seen.var(axis=(0, 1, 2)), rtol=1e-3)


def face_resnet_weights():
    """Random weights with the names and shapes under which dlib's network is published; sizes that keep answers level."""
    rng, weights = np.random.default_rng(0), {}
    plan = [("conv32_down", 7, 3, 32)]
    for filters, before, blocks in ((32, 32, ("1", "2", "3")), (64, 32, ("down", "1", "2", "3")),
                                    (128, 64, ("down", "1", "2")), (256, 128, ("down", "1", "2"))):  # fmt: skip
        for block in blocks:
            plan.append((f"conv{filters}_{block}/conv1", 3, before if block == "down" else filters, filters))
            plan.append((f"conv{filters}_{block}/conv2", 3, filters, filters))
    for name, side, incoming, filters in plan:
        weights[f"{name}/conv/filters"] = rng.normal(0, 1 / (side * np.sqrt(incoming)), (side, side, incoming, filters))
        weights[f"{name}/conv/bias"], weights[f"{name}/scale/biases"] = rng.normal(0, 0.3, (2, filters))
        weights[f"{name}/scale/weights"] = rng.uniform(0.5, 1.5, filters)
    return {name: array.astype(np.float16).astype(np.float32) for name, array in weights.items()}


def face_resnet_answers(weights, x):
    """What dlib's network computes from the published weights, written down from its description; x is preprocessed."""

    def layer(x, name, strides):
        x = keras.ops.conv(x, weights[f"{name}/conv/filters"], strides, "same" if strides == 1 else "valid")
        return (x + weights[f"{name}/conv/bias"]) * weights[f"{name}/scale/weights"] + weights[f"{name}/scale/biases"]

    x = keras.ops.max_pool(keras.ops.relu(layer(x, "conv32_down", 2)), 3, 2)
    blocks = dict.fromkeys(name.split("/")[0] for name in weights if "/conv1/" in name)
    for block in blocks:
        halve = block.endswith("down")
        added = layer(keras.ops.relu(layer(x, f"{block}/conv1", 1 + halve)), f"{block}/conv2", 1)
        if halve:
            x = keras.ops.average_pool(x, 2, 2)
            x = np.concatenate([x, np.zeros_like(x)], axis=-1)
            added = np.pad(added, [(0, 0), *[(0, x.shape[1] - added.shape[1])] * 2, (0, 0)])
        x = keras.ops.relu(x + added)
    return np.asarray(x)


def test_a_mobilenet_answers_as_the_published_network_and_says_where_it_is_from(tmp_path, faces):
    expected = build("mobilenet")
    path = publish(tmp_path, published(expected))
    fill(body_of(expected), read_weights(path), MOBILENET)
    record = make_body("mobilenet_faces", path, faces, tmp_path / "body")
    network = build("mobilenet", {"weights": str(tmp_path / "body" / "body.npz")})
    x = faces[:4, ..., None].astype(np.float32)
    before, after = np.asarray(body_of(expected)(x)), np.asarray(body_of(network)(x))
    assert before.std() > 0 and np.allclose(before, after, atol=0.01 * np.abs(before).max())
    assert record == json.loads((tmp_path / "body" / "record.json").read_text(encoding="utf-8"))
    assert record["source"]["package"] and record["body"]["bytes"] == (tmp_path / "body" / "body.npz").stat().st_size


def test_a_face_resnet_answers_as_the_published_network(tmp_path, faces):
    weights = face_resnet_weights()
    make_body("face_resnet", publish(tmp_path, weights), faces, tmp_path / "body")
    network = body_of(build("face_resnet", {"weights": str(tmp_path / "body" / "body.npz")}))
    x = faces[:4, ..., None].astype(np.float32)
    seen = keras.Model(network.input, network.get_layer("preprocess").output)(x)
    before, after = face_resnet_answers(weights, seen), np.asarray(network(x))
    assert before.shape == (4, 3, 3, 256) and before.std() > 0.1
    assert np.allclose(before, after, atol=0.01 * np.abs(before).max())


def test_vgg16_answers_as_torchvisions_to_grey_pictures(tmp_path, faces):
    rng, before, weights = np.random.default_rng(0), 3, {}
    for place, filters in enumerate([64] * 2 + [128] * 2 + [256] * 3 + [512] * 6):
        kernel = rng.normal(0, np.sqrt(2 / (9 * before)), (3, 3, before, filters)).astype(np.float32)
        weights[f"Conv_{place}"] = {"kernel": kernel, "bias": rng.normal(0, 0.1, filters).astype(np.float32)}
        before = filters
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps({"VGG16_0": weights}))
    make_body("vgg16_imagenet", path, faces, tmp_path / "body")
    network = body_of(build("vgg16_norm", {"weights": str(tmp_path / "body" / "body.npz")}))
    x = faces[:4, ..., None].astype(np.float32)
    # torchvision's VGG16, written down from its description; the levels that padding stands for differ by up to a half.
    y = (x / 255 - np.float32(TORCH_MEANS)) / np.float32(TORCH_SPREADS)
    for place, layer in enumerate(weights.values()):
        if place in (2, 4, 7, 10):
            y = keras.ops.max_pool(y, 2, 2)
        y = keras.ops.relu(keras.ops.conv(y, layer["kernel"], padding="same") + layer["bias"])
    expected, found = np.asarray(keras.ops.max_pool(y, 2, 2)), np.asarray(network(x))
    assert expected.shape == (4, 1, 1, 512) and expected.std() > 0.1
    assert np.allclose(expected, found, atol=0.03 * expected.max())


def movenet_name(convolution):
    """The name under which a convolution of MobileNetV2 is published, without its ending."""
    return f"{MOVENET_BACKBONE}/{convolution.name}/{'depthwise' if 'depthwise' in convolution.name else 'Conv2D'}"


def test_every_layer_of_mobilenet_v2_gets_its_weights():
    network, rng, weights = build("mobilenet_v2", {"weights": None}), np.random.default_rng(0), {}
    body = [layer for layer in body_layers(network) if layer.weights]
    pairs = list(zip(body[::2], body[1::2], strict=True))
    for convolution, norm in pairs:
        name = movenet_name(convolution)
        weights[f"{name}_weights"] = rng.normal(size=convolution.kernel.shape).astype(np.float32)
        weights[f"{name}_bn_offset"] = rng.normal(size=norm.beta.shape).astype(np.float32)
    fill(body, weights, BODIES["mobilenet_v2_poses"])
    for convolution, norm in pairs:
        name, x = movenet_name(convolution), rng.normal(size=(1, 1, 1, norm.beta.shape[0])).astype(np.float32)
        assert np.array_equal(convolution.kernel, weights[f"{name}_weights"])
        assert np.allclose(norm(x, training=False), x + weights[f"{name}_bn_offset"], atol=1e-5)


def test_published_names_of_resnet50_are_those_of_its_authors():
    names = ("conv1_conv", "conv1_bn", "conv2_block1_0_conv", "conv3_block4_2_bn", "conv5_block3_3_conv")
    assert [resnet50_name(name) for name in names] == ["conv1", "bn_conv1", "res2a_branch1", "bn3d_branch2b", "res5c_branch2c"]
    with pytest.raises(ValueError, match="Received: conv2_block1_out"):
        resnet50_name("conv2_block1_out")


def test_every_layer_of_resnet50_gets_its_weights_and_answers_as_the_published_one():
    network, rng, weights = build("resnet50", {"weights": None}), np.random.default_rng(0), {}
    for layer in body_layers(network):
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.BatchNormalization)):
            for variable in layer.weights:
                values = rng.uniform(0.5, 1.5, variable.shape).astype(np.float32)
                weights[f"{resnet50_name(layer.name)}/{variable.name}"] = values
    assert len(weights) == 318
    fill(body_layers(network), weights, BODIES["resnet50_imagenet"])
    assert np.array_equal(network.get_layer("conv4_block6_2_conv").kernel, weights["res4f_branch2b/kernel"])
    norm, x = network.get_layer("conv5_block1_0_bn"), np.linspace(-2, 2, 2048, dtype=np.float32).reshape(1, 1, 1, 2048)
    gamma, beta, mean, variance = (
        weights[f"bn5a_branch1/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    expected = gamma * (x - mean) / np.sqrt(variance + RESNET50_EPSILON) + beta
    assert np.allclose(norm(x, training=False), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenet", "face_resnet"])
def test_weights_of_imagenet_are_refused(name):
    with pytest.raises(ValueError, match="must be None or a path"):
        build(name, {"weights": "imagenet"})
