"""FER-2013 as arrays: found or downloaded, read, cached, split officially, checked, cleaned; FER+ votes joined.

Sources: FER-2013 (Goodfellow et al. 2013), FER+ (Barsoum et al. 2016, "Training Deep Networks for Facial Expression
Recognition with Crowd-Sourced Label Distribution"). Needs NumPy alone (and Pillow to read pictures), so it also runs where
there is no TensorFlow.
"""

import csv
import hashlib
import os
import tempfile
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from emotion.fer_readers import USAGES, DatasetError, Records, read_records
from emotion.labels import EMOTIONS

OFFICIAL_COUNTS = {
    "Training": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "PublicTest": (467, 56, 496, 895, 653, 415, 607),
    "PrivateTest": (491, 55, 528, 879, 594, 416, 626),
}
"""Pictures per class, in the order of `EMOTIONS`."""

VOTE_COLUMNS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
"""What FER+ taggers could choose; NF means "not a face"."""

VOTES_OF_EMOTION = [VOTE_COLUMNS.index(n) for n in ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")]
"""Vote columns in the order of `EMOTIONS`; contempt, unknown and NF have no class in FER-2013."""

_PROJECT = Path(__file__).resolve().parent.parent
_CACHE_FOLDER = _PROJECT / "fer2013" / ".cache"
_NAMES = ("fer2013.zip", "archive.zip", "fer2013.csv", "icml_face_data.csv", "fer2013.npz")
HOW_TO_GET_IT = (
    "Download https://www.kaggle.com/datasets/msambare/fer2013 with a browser and put the zip file, unopened, into the "
    "folder fer2013/ (or point FER2013_DIR at its folder); see fer2013/README.md."
)


@dataclass(frozen=True)
class Split:
    """One part of the data set.

    Attributes:
        images: uint8 (n, 48, 48), grey levels 0..255.
        labels: int64 (n,), indices into `EMOTIONS`.
        rows: int64 (n,), row of the original `fer2013.csv`, -1 where the download does not tell.
        votes: float32 (n, 10), FER+ votes in the order of `VOTE_COLUMNS`, or None.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    votes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the rows at `indices` (integer positions or a boolean mask)."""
        votes = None if self.votes is None else self.votes[indices]
        return Split(self.images[indices], self.labels[indices], self.rows[indices], votes)


@dataclass(frozen=True)
class FER2013:
    """The three official parts, and what a reader should know about where they came from.

    Attributes:
        training, public_test, private_test: the parts. Training fits, PublicTest selects, PrivateTest is for the last table.
        source: the path that was read.
        checksum: sha256 over all pixels, labels and parts; the same for the same data in any packing.
        notes: sentences on whatever departs from the official data set.
    """

    training: Split
    public_test: Split
    private_test: Split
    source: str
    checksum: str
    notes: tuple[str, ...] = field(default=())

    def splits(self) -> dict[str, Split]:
        """Returns official name -> part, in the order Training, PublicTest, PrivateTest."""
        return dict(zip(USAGES, (self.training, self.public_test, self.private_test), strict=True))


def find_fer2013() -> Path:
    """Returns the data set's path: looks in fer2013/, $FER2013_DIR, then ../shared/fer2013.

    Raises:
        DatasetError: not there; the message says how to get it.
    """
    places = [_PROJECT / "fer2013", *filter(None, [os.environ.get("FER2013_DIR")]), _PROJECT.parent / "shared" / "fer2013"]
    for place in map(Path, places):
        if place.is_file():
            return place
        for name in _NAMES:
            if (place / name).is_file():
                return place / name
        if (place / "train").is_dir() or (place / "test").is_dir():
            return place
    raise DatasetError(f"FER-2013 must lie in one of: {', '.join(map(str, places))}. Found in none. {HOW_TO_GET_IT}")


def download_fer2013() -> Path:
    """Fetches msambare/fer2013 from Kaggle with kagglehub, which shows a progress bar, and returns its folder.

    Raises:
        DatasetError: no network, no account or no such data set; the message names the manual way.
    """
    import kagglehub

    try:
        return Path(kagglehub.dataset_download("msambare/fer2013"))
    except Exception as error:  # kagglehub raises many kinds, some of them requests' and urllib3's own
        raise DatasetError(f"FER-2013 could not be downloaded ({type(error).__name__}: {error}). {HOW_TO_GET_IT}") from error


def load_fer2013(path: str | Path | None = None, *, download: bool = False, cache: bool = True, seed: int = 0) -> FER2013:
    """Loads FER-2013 from any of its usual forms.

    Args:
        path: folder with train/ and test/, a zip of them, `fer2013.csv`, `icml_face_data.csv`, or an npz of
            `pack_fer2013`. None looks where `find_fer2013` looks.
        download: whether to fetch it from Kaggle when it is found nowhere.
        cache: whether to keep the arrays in fer2013/.cache, so that the next load takes under two seconds.
        seed: of the stratified split, used only when a download lost the line between PublicTest and PrivateTest.

    Returns:
        The three parts, with FER+ votes where `fer2013new.csv` lies beside the data and its rows are known.

    Raises:
        DatasetError: missing, incomplete or damaged data. Nothing is cached then.
    """
    if path is None:
        try:
            path = find_fer2013()
        except DatasetError:
            if not download:
                raise
            path = download_fer2013()
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"the data set's path must exist. Received: {path}. {HOW_TO_GET_IT}")
    if path.suffix == ".npz":
        records = _read_packed(path)
    else:
        cached = _CACHE_FOLDER / f"{_fingerprint(path)}.npz"
        if cache and cached.is_file():
            records = _read_packed(cached)
        else:
            records = read_records(path)
            if cache:
                _write_packed(records, cached)
    return _assemble(records, path, seed)


def pack_fer2013(data: FER2013, path: str | Path) -> Path:
    """Writes all three parts into one compressed npz that `load_fer2013` reads; votes travel in `fer2013new.csv`."""
    splits = data.splits()
    usages = np.concatenate([np.full(len(split), usage) for usage, split in splits.items()])
    images, labels, rows = (np.concatenate([getattr(s, n) for s in splits.values()]) for n in ("images", "labels", "rows"))
    return _write_packed(Records(images, labels, usages, rows), Path(path), compress=True)


def _fingerprint(path: Path) -> str:
    """A key that changes when the files do; reads names, sizes and times only."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256(str(path.resolve()).encode())
    for file in files:
        status = file.stat()
        if file.is_file() and _CACHE_FOLDER not in file.parents:
            digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _write_packed(records: Records, path: Path, compress: bool = False) -> Path:
    """Writes beside the target and renames, so that a kill leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            (np.savez_compressed if compress else np.savez)(file, **vars(records))
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    Path(file.name).replace(path)
    return path


def _read_packed(path: Path) -> Records:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Records(**{name: arrays[name] for name in ("images", "labels", "usages", "rows")})
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DatasetError(f"{path} must be an npz that pack_fer2013 wrote; delete it and load again ({error})") from error


def _assemble(records: Records, path: Path, seed: int) -> FER2013:
    notes = []
    usages = records.usages.astype(object)
    usages[usages == "train"] = "Training"
    lost = usages == "test"
    if lost.any():
        usages[lost] = _halves(records.labels[lost], seed)
        notes.append(
            f"The file names do not tell PublicTest from PrivateTest: test/ was split in halves by class (seed {seed}). "
            "Results are not comparable with published ones."
        )
    votes, note = _read_votes(path, records, usages)
    notes += [note] if note else []
    parts = {}
    for usage in USAGES:
        where = np.flatnonzero(usages == usage)
        if records.rows[where].min(initial=0) >= 0:
            where = where[np.argsort(records.rows[where], kind="stable")]
        if not len(where):
            raise DatasetError(f"the data set must hold {', '.join(USAGES)}. Found no {usage} in {path}")
        parts[usage] = Split(records.images[where], records.labels[where].astype(np.int64), records.rows[where],
                             None if votes is None else votes[where])  # fmt: skip
        counts = tuple(np.bincount(parts[usage].labels, minlength=len(EMOTIONS)).tolist())
        if counts != OFFICIAL_COUNTS[usage]:
            notes.append(f"{usage} has {counts} pictures a class; official: {OFFICIAL_COUNTS[usage]}.")
    if lost.any():
        warnings.warn(notes[0], stacklevel=3)
    return FER2013(*parts.values(), source=str(path), checksum=_checksum(parts), notes=tuple(notes))


def _halves(labels: np.ndarray, seed: int) -> np.ndarray:
    """Assigns PublicTest and PrivateTest in equal numbers within each class."""
    rng = np.random.default_rng(seed)
    usages = np.empty(len(labels), dtype=object)
    for label in np.unique(labels):
        where = rng.permutation(np.flatnonzero(labels == label))
        usages[where[: len(where) // 2]] = "PublicTest"
        usages[where[len(where) // 2 :]] = "PrivateTest"
    return usages


def _read_votes(path: Path, records: Records, usages: np.ndarray) -> tuple[np.ndarray | None, str | None]:
    """Joins FER+ by row; returns (None, why) where that cannot be done safely."""
    file = (path if path.is_dir() else path.parent) / "fer2013new.csv"
    if not file.is_file():
        return None, None
    if records.rows.min() < 0:
        return None, "FER+ votes were left out: the file names do not carry the rows of fer2013.csv."
    with file.open(newline="", encoding="utf-8") as lines:
        table = list(csv.DictReader(lines))
    if len(table) <= records.rows.max():
        pictures = records.rows.max() + 1
        raise DatasetError(f"{file} must have a row for each picture. Received: {len(table)} rows, {pictures} pictures")
    if any(table[row]["Usage"] != usage for row, usage in zip(records.rows, usages, strict=True)):
        return None, "FER+ votes were left out: their Usage column does not agree with the pictures' parts."
    votes = np.array([[float(line[column]) for column in VOTE_COLUMNS] for line in table], dtype=np.float32)
    return votes[records.rows], None


def _checksum(parts: dict[str, Split]) -> str:
    digest = hashlib.sha256()
    for usage, split in parts.items():
        hashes = sorted(image.tobytes() + bytes([label]) for image, label in zip(split.images, split.labels, strict=True))
        digest.update(usage.encode())
        for item in hashes:
            digest.update(item)
    return digest.hexdigest()


def subset(data: FER2013, per_class: int, seed: int = 0) -> FER2013:
    """Returns at most `per_class` pictures of each class and part, chosen by `seed`: for rehearsals and tests."""
    rng = np.random.default_rng(seed)

    def pick(split: Split) -> Split:
        chosen = [rng.permutation(np.flatnonzero(split.labels == k))[:per_class] for k in range(len(EMOTIONS))]
        return split.take(np.sort(np.concatenate(chosen)))

    parts = [pick(split) for split in data.splits().values()]
    checksum = _checksum(dict(zip(USAGES, parts, strict=True)))
    note = f"A sample: at most {per_class} pictures a class (seed {seed})."
    return replace(data, training=parts[0], public_test=parts[1], private_test=parts[2], checksum=checksum,
                   notes=(*data.notes, note))  # fmt: skip
