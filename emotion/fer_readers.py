"""Readers of the forms in which FER-2013 is passed around: class folders, a zip of them, pixel-text CSV, packed npz.

Each reader returns one `Records` with the rows of all three parts; `emotion.dataset` splits, checks and caches them.
"""

import csv
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion.labels import EMOTIONS

SIDE = 48
USAGES = ("Training", "PublicTest", "PrivateTest")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_PREFIX = re.compile(r"(Training|PublicTest|PrivateTest)_?(\d+)", re.IGNORECASE)


class DatasetError(ValueError):
    """The data set cannot be read; the message names the file or row and the rule that it breaks."""


@dataclass
class Records:
    """All rows of one download, in reading order.

    Attributes:
        images: uint8 (n, 48, 48), grey levels.
        labels: int64 (n,), indices into `EMOTIONS`.
        usages: str (n,), one of `USAGES`, or "train" / "test" where the names do not tell the two tests apart.
        rows: int64 (n,), row of the original `fer2013.csv`; -1 where unknown.
    """

    images: np.ndarray
    labels: np.ndarray
    usages: np.ndarray
    rows: np.ndarray


def read_records(path: Path) -> Records:
    """Reads a folder, `.zip` or `.csv`; see the module for the forms.

    Raises:
        DatasetError: the download is incomplete or damaged.
    """
    if path.is_dir():
        return _read_pictures(_folder_entries(path), path)
    if path.suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return _read_pictures(_zip_entries(archive), path)
        except (zipfile.BadZipFile, EOFError) as error:
            raise DatasetError(f"{path} must be a whole zip file; download it again. Reading it failed: {error}") from error
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    raise DatasetError(f"the data set must be a folder, a .zip or a .csv file. Received: {path}")


def _folder_entries(folder: Path):
    """Yields (part, class, file name, function reading the bytes) below train/ and test/."""
    root = next((p for p in (folder, *sorted(folder.iterdir())) if p.is_dir() and (p / "train").is_dir()), folder)
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise DatasetError(f"{folder} must hold the folders train and test. Missing: {part}")
        for class_folder in sorted(p for p in (root / part).iterdir() if p.is_dir()):
            files = sorted(p for p in class_folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not files:
                raise DatasetError(f"each class folder must hold pictures (.png or .jpg). Empty: {class_folder}")
            for file in files:
                yield part, class_folder.name, str(file.relative_to(folder)), file.read_bytes


def _zip_entries(archive: zipfile.ZipFile):
    for name in sorted(archive.namelist()):
        parts = name.split("/")
        if len(parts) < 3 or Path(name).suffix.lower() not in IMAGE_SUFFIXES or parts[-3] not in ("train", "test"):
            continue
        yield parts[-3], parts[-2], name, lambda name=name: archive.read(name)


def _read_pictures(entries, source: Path) -> Records:
    images, labels, usages, rows = [], [], [], []
    for part, class_name, name, read_bytes in entries:
        if class_name.lower() not in EMOTIONS:
            raise DatasetError(f"class folders must be named {', '.join(EMOTIONS)}. Received: {class_name} ({name})")
        match = _PREFIX.match(Path(name).name)
        usage = next(u for u in USAGES if u.lower() == match[1].lower()) if match else part
        if (usage in ("Training", "train")) != (part == "train"):
            raise DatasetError(f"{usage} pictures must lie in {'train' if usage == 'Training' else 'test'}. Received: {name}")
        images.append(_decode(read_bytes, name))
        labels.append(EMOTIONS.index(class_name.lower()))
        usages.append(usage)
        rows.append(int(match[2]) if match else -1)
    if not images:
        raise DatasetError(f"{source} must hold pictures under train/<class>/ and test/<class>/. Found none.")
    for part in ("train", "test"):
        in_part = [(usage in ("Training", "train")) == (part == "train") for usage in usages]
        present = {label for label, here in zip(labels, in_part, strict=True) if here}
        missing = [name for index, name in enumerate(EMOTIONS) if index not in present]
        if missing:
            raise DatasetError(
                f"{part} must hold pictures of all seven classes; was the download extracted to its end? "
                f"Missing in {source}: {', '.join(missing)}"
            )
    return Records(np.stack(images), np.array(labels), np.array(usages), _trusted_rows(np.array(usages), np.array(rows)))


def _decode(read_bytes, name: str) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(read_bytes())) as picture:
            pixels = np.asarray(picture.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError, zipfile.BadZipFile) as error:
        raise DatasetError(f"every picture must be a whole .png or .jpg file. Damaged: {name} ({error})") from error
    if pixels.shape != (SIDE, SIDE):
        raise DatasetError(f"every picture must be 48x48 pixels. Received: {pixels.shape[1]}x{pixels.shape[0]} ({name})")
    return pixels


def _trusted_rows(usages: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Keeps the numbers in the file names only if they can be rows of `fer2013.csv`: 0..n-1, parts one after another.

    The usual download carries other digits there, which must not be taken for rows.
    """
    if set(usages) == set(USAGES):
        order = np.argsort(numbers, kind="stable")
        ranks = np.array([USAGES.index(usage) for usage in usages[order]])
        if np.array_equal(numbers[order], np.arange(len(numbers))) and np.all(np.diff(ranks) >= 0):
            return numbers.astype(np.int64)
    return np.full(len(numbers), -1, dtype=np.int64)


def _read_csv(path: Path) -> Records:
    """Reads `fer2013.csv` or `icml_face_data.csv`: emotion, 2,304 grey levels as text, Usage, in either column order."""
    images, labels, usages = [], [], []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        names = [name.strip().lower() for name in next(reader, [])]
        if not {"emotion", "pixels", "usage"} <= set(names):
            raise DatasetError(f"{path} must have the columns emotion, pixels, Usage. Received: {', '.join(names) or 'nothing'}")
        where = [names.index(name) for name in ("emotion", "pixels", "usage")]
        for row, fields in enumerate(reader):
            if not fields:
                continue
            if len(fields) <= max(where):
                raise DatasetError(f"each row must have {len(names)} fields. Received: {len(fields)} (row {row} of {path})")
            emotion, pixels, usage = (fields[column].strip() for column in where)
            if usage not in USAGES:
                raise DatasetError(f"Usage must be one of {', '.join(USAGES)}. Received: {usage!r} (row {row} of {path})")
            if not emotion.isdigit() or int(emotion) >= len(EMOTIONS):
                raise DatasetError(f"emotion must be a whole number 0..6. Received: {emotion!r} (row {row} of {path})")
            images.append(parse_pixels(pixels, f"row {row} of {path}"))
            labels.append(int(emotion))
            usages.append(usage)
    if not images:
        raise DatasetError(f"{path} must have rows below its header. Found none.")
    rows = np.arange(len(images))
    return Records(np.stack(images), np.array(labels), np.array(usages), _trusted_rows(np.array(usages), rows))


def parse_pixels(text: str, where: str = "") -> np.ndarray:
    """Turns the pixel text of `fer2013.csv` into a picture.

    Args:
        text: 2,304 grey levels 0..255 separated by blanks, row after row.
        where: named in the error, e.g. "row 17".

    Returns:
        uint8 (48, 48).

    Raises:
        DatasetError: another count of numbers, something that is no whole number, or one outside 0..255.
    """
    suffix = f" ({where})" if where else ""
    try:
        values = np.array(text.split(), dtype=np.int64)
    except ValueError as error:
        raise DatasetError(f"pixels must be whole numbers{suffix}: {error}") from error
    if values.size != SIDE * SIDE:
        raise DatasetError(f"pixels must hold 48*48 numbers. Received: {values.size}{suffix}")
    if values.min() < 0 or values.max() > 255:
        raise DatasetError(f"pixels must lie in 0..255. Received: {values.min()}..{values.max()}{suffix}")
    return values.astype(np.uint8).reshape(SIDE, SIDE)
