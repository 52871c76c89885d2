"""Labelled pictures of any kind of thing, as arrays: what a body is pre-trained on. NumPy and Pillow only.

Three forms are read: a folder of `.npz` parts of which `val.npz` holds the validation pictures (such as Tiny ImageNet packed as
grey JPEG), a single `.npz`, and a folder with one folder of pictures per class. The latter two have no validation part: a
tenth of each class becomes it.

An npz holds `labels` (n,) and either `images`, uint8 (n, h, w), or `jpeg`, uint8, the bytes of all picture files one after
another, with `offsets` (n + 1,) between them. Class names may stand in `names` or `wnids`.
"""

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from emotion.dataset import Split
from emotion.fer_readers import IMAGE_SUFFIXES, SIDE, DatasetError

_PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Pictures:
    """Pictures to pre-train on.

    Attributes:
        training, validation: images uint8 (n, 48, 48); labels 0..classes-1; rows are places in what was read (of npz
            parts: in the training parts one after another, and in val.npz).
        classes: names, in the order of the labels.
        available: {classes, training, validation}: counts before a sample was taken.
        source: name of the file or folder that was read.
        checksum: sha256 over pixels and labels.
    """

    training: Split
    validation: Split
    classes: tuple[str, ...]
    available: dict[str, int]
    source: str
    checksum: str


@dataclass(frozen=True)
class _Part:
    """Pictures not yet decoded: arrays (h, w), bytes of picture files, or paths of such; rows: places in what was read."""

    items: Sequence
    labels: np.ndarray
    rows: np.ndarray


def find_pictures() -> Path:
    """Returns the path of the pictures: $TINY_IMAGENET_DIR, then ../shared/tiny_imagenet.

    Raises:
        DatasetError: there are none.
    """
    places = [*filter(None, [os.environ.get("TINY_IMAGENET_DIR")]), _PROJECT.parent / "shared" / "tiny_imagenet"]
    for place in map(Path, places):
        if place.exists():
            return place
    raise DatasetError(
        f"pictures to pre-train on must lie in one of: {', '.join(map(str, places))}. Found in none. With --data name an npz, or "
        "a folder that holds a folder of pictures for each class"
    )


def load_pictures(path: str | Path | None = None, classes: int = 0, per_class: int = 0, seed: int = 0) -> Pictures:
    """Loads labelled pictures as grey 48x48.

    Args:
        path: an npz, or a folder in one of the forms above; None looks where `find_pictures` looks.
        classes: take so many classes, drawn by the seed; 0 is all.
        per_class: at most so many training pictures of each class, drawn by the seed; 0 is all. Validation keeps all.
        seed: of the draws, and of the validation part where there is none.

    Raises:
        DatasetError: missing or damaged pictures, or fewer than two classes.
    """
    path = Path(path) if path else find_pictures()
    training, validation, names = _read(path, seed)
    available = {"classes": len(names), "training": len(training.labels), "validation": len(validation.labels)}
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(names))[: classes or None])
    if len(chosen) < 2:
        raise DatasetError(f"pictures must have at least two classes. Received: {len(chosen)} in {path}")
    rows = [rng.permutation(np.flatnonzero(training.labels == label))[: per_class or None] for label in chosen]
    training = _decoded(training, np.sort(np.concatenate(rows)), chosen)
    validation = _decoded(validation, np.flatnonzero(np.isin(validation.labels, chosen)), chosen)
    digest = hashlib.sha256()
    for split in (training, validation):
        digest.update(split.images.tobytes() + split.labels.tobytes())
    return Pictures(training, validation, tuple(names[i] for i in chosen), available, path.name, digest.hexdigest())


def _read(path: Path, seed: int) -> tuple[_Part, _Part, list[str]]:
    if not path.exists():
        raise DatasetError(f"the pictures' path must exist. Received: {path}")
    if path.is_dir() and (path / "val.npz").is_file():
        files = [file for file in sorted(path.glob("*.npz")) if file.name != "val.npz"]
        if not files:
            raise DatasetError(f"{path} must hold training pictures in .npz files beside val.npz. Found none")
        parts = [_read_npz(file)[0] for file in files]
        validation, names = _read_npz(path / "val.npz")
        items = [item for part in parts for item in part.items]
        training = _Part(items, np.concatenate([part.labels for part in parts]), np.arange(len(items)))
        if training.labels.max() >= len(names):
            raise DatasetError(
                f"{path / 'val.npz'} must name every class. Received: {len(names)}, a label {training.labels.max()}"
            )
        return training, validation, names
    part, names = _read_folder(path) if path.is_dir() else _read_npz(path)
    held_out = np.zeros(len(part.labels), dtype=bool)
    rng = np.random.default_rng(seed)
    for label in range(len(names)):
        where = rng.permutation(np.flatnonzero(part.labels == label))
        held_out[where[: max(len(where) // 10, 1)]] = True
    return _taken(part, np.flatnonzero(~held_out)), _taken(part, np.flatnonzero(held_out)), names


def _read_npz(path: Path) -> tuple[_Part, list[str]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            labels = arrays["labels"].astype(np.int64)
            if "images" in arrays.files:
                items = arrays["images"]
            else:
                data, offsets = arrays["jpeg"].tobytes(), arrays["offsets"]
                items = [data[a:b] for a, b in pairwise(offsets)]
            named = next((arrays[key] for key in ("names", "wnids") if key in arrays.files), None)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DatasetError(
            f"{path} must be an npz with labels, and images or jpeg and offsets. Reading it failed: {error}"
        ) from error
    if len(items) != len(labels) or not len(labels) or labels.min() < 0:
        raise DatasetError(
            f"{path} must have a label >= 0 for each picture. Received: {len(items)} pictures, {len(labels)} labels"
        )
    names = [str(label) for label in range(labels.max() + 1)] if named is None else [str(name) for name in named]
    return _Part(items, labels, np.arange(len(labels))), names


def _read_folder(path: Path) -> tuple[_Part, list[str]]:
    items, labels, names = [], [], []
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if files:
            items += files
            labels += [len(names)] * len(files)
            names.append(folder.name)
    return _Part(items, np.array(labels, dtype=np.int64), np.arange(len(labels))), names


def _taken(part: _Part, rows: np.ndarray) -> _Part:
    return _Part([part.items[row] for row in rows], part.labels[rows], rows)


def _decoded(part: _Part, rows: np.ndarray, chosen: np.ndarray) -> Split:
    """Decodes the rows; their labels become positions in `chosen`, which is sorted."""
    images = np.empty((len(rows), SIDE, SIDE), np.uint8)
    for place, row in enumerate(rows):
        try:
            images[place] = _grey(part.items[row])
        except OSError as error:
            item = part.items[row] if isinstance(part.items[row], Path) else f"picture {part.rows[row]}"
            raise DatasetError(f"each picture must be a whole JPEG or PNG file. Received: {item} ({error})") from error
    return Split(images, np.searchsorted(chosen, part.labels[rows]), part.rows[rows])


def _grey(item) -> np.ndarray:
    if isinstance(item, np.ndarray):
        picture = Image.fromarray(item)
    else:
        picture = Image.open(item if isinstance(item, Path) else io.BytesIO(item))
    picture = picture.convert("L")
    return np.asarray(picture if picture.size == (SIDE, SIDE) else picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
