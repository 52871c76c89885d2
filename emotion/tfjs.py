"""Reads the weights of models that are published for TensorFlow.js: a JSON file, and binary files beside it. NumPy only."""

import hashlib
import json
from pathlib import Path

import numpy as np


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the weights of a TensorFlow.js model.

    Args:
        path: of the model's JSON file, or of a weights' manifest alone; the binary files that it names lie beside it.

    Returns:
        Name -> float32 array, also of those kept in float16 or in eight bits with a scale.

    Raises:
        ValueError: the JSON holds no such model, or the binary files have another length together than it says.
    """
    entries, files = _manifest(path)
    content, start, weights = b"".join(file.read_bytes() for file in files), 0, {}
    for entry in entries:
        kept = entry.get("quantization", {})
        kept_as = np.dtype(kept.get("dtype", entry["dtype"]))
        count = int(np.prod(entry["shape"]))
        end = start + count * kept_as.itemsize
        values = np.frombuffer(content[start:end], kept_as)
        if len(values) != count:
            raise ValueError(f"{files[-1]} must hold {entry['name']} up to byte {end}. Received: {len(content)} bytes")
        values = values.astype(np.float32)
        if "scale" in kept:
            values = values * np.float32(kept["scale"]) + np.float32(kept["min"])
        weights[entry["name"]] = values.reshape(entry["shape"])
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
        content = json.loads(path.read_text(encoding="utf-8"))
        (group,) = content["weightsManifest"] if isinstance(content, dict) else content
        return group["weights"], [path.parent / name for name in group["paths"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"a TensorFlow.js model must list its weights and their files. Received: {path}") from error
