"""FER-2013's pictures framed as the page frames a face: found, half upright, eyes and mouth at their mean places.

The data set's own framing varies, that of the page does not. What a network is served, it should also be trained and judged on.
Finding the faces takes about 12 ms a picture, so the result is kept in fer2013/.cache, which git ignores.
"""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

CACHE = Path(__file__).resolve().parent.parent / "fer2013" / ".cache"


def framed(images: np.ndarray, cache: Path | None = CACHE) -> np.ndarray:
    """Returns the pictures with their largest face aligned; one in which no face is found stays as it is.

    Args:
        images: uint8 (n, 48, 48).
        cache: folder where the answer is kept and looked for; None keeps nothing.

    Returns:
        uint8 (n, 48, 48).
    """
    from emotion.faces import KEPT_TILT, MAX_KEPT_TILT, REFERENCE_POINTS, FaceFinder, read_image

    kept = None
    if cache is not None:
        key = hashlib.sha256(images.tobytes() + repr((REFERENCE_POINTS, KEPT_TILT, MAX_KEPT_TILT)).encode()).hexdigest()[:16]
        kept = cache / f"framed_{key}.npy"
        if kept.is_file():
            return np.load(kept)
    finder, result = FaceFinder(), images.copy()
    for i, image in enumerate(images):
        faces = finder.find(read_image(image))
        if faces:
            result[i] = max(faces, key=lambda face: face.box[2] * face.box[3]).crop
    if kept is not None:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, suffix=".part", delete=False) as file:
            np.save(file, result)
        os.replace(file.name, kept)  # a kill leaves no half file
    return result
