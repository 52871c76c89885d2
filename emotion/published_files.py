"""Reads weights that others have published: for TensorFlow.js, or as a pickle of arrays. NumPy only."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a model's weights.

    Args:
        path: of a TensorFlow.js model's JSON file, or of its weights' manifest alone: the binary files that it names lie beside
            it. Or of a pickle, .ckpt, that holds arrays in dictionaries and nothing else.

    Returns:
        Name -> float32 array, also of those kept in float16 or in eight bits with a scale. An array of a pickle is named by the
        keys that lead to it, with "/" between them.

    Raises:
        ValueError: the JSON holds no such model, its binary files have another length together than it says, or a pickle holds
            anything but arrays in dictionaries.
    """
    if Path(path).suffix == ".ckpt":
        return _pickled(Path(path))
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
    """Returns the SHA-256 of a model's weights in hex: of a TensorFlow.js model's binary files one after the other."""
    digest = hashlib.sha256()
    for file in [Path(path)] if Path(path).suffix == ".ckpt" else _manifest(path)[1]:
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


class _ArraysOnly(pickle.Unpickler):
    """Refuses whatever a pickle names but the parts of a NumPy array: no code of its own can run."""

    ALLOWED = ("_reconstruct", "ndarray", "dtype")

    def find_class(self, module: str, name: str):
        if module.split(".")[0] != "numpy" or name not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def _pickled(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            return dict(_flat(_ArraysOnly(file).load(), ""))
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} must hold arrays in dictionaries and nothing else. Received: {error}") from error


def _flat(content, name: str):
    if isinstance(content, np.ndarray):
        yield name, content.astype(np.float32)
        return
    if not isinstance(content, dict):
        raise TypeError(type(content).__name__)
    for key, value in content.items():
        yield from _flat(value, f"{name}/{key}" if name else key)
