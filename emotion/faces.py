"""Photo -> faces: where they are, 468 landmarks, and a 48x48 grey crop aligned like the faces of FER-2013."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from emotion.blazeface import Detections, FaceDetector, FaceMesh, warp
from emotion.images import ImageError, area_resize, read_image

__all__ = ["DetectedFace", "FaceFinder", "ImageError", "align", "alignment", "eyes_and_mouth", "read_image", "upright"]

CROP_SIZE = 48

# Mean position of left eye, right eye and mouth (left and right as in the picture) on the 48x48 images of FER-2013's
# Training set, in pixels from the top left corner. Measured by benchmarks/measure_alignment.py on the 28,002 of 28,709
# images in which a face is found.
REFERENCE_POINTS = ((15.30, 18.51), (32.48, 18.28), (24.17, 36.48))

# How much of a head's tilt an aligned face keeps, and no more than how many degrees. Heads of FER-2013 tilt, and landmarks found
# on small faces err: keeping none answers worse, keeping all no better (benchmarks/measure_path.py --kept-tilt).
# Training turns faces by up to the limit itself.
KEPT_TILT = 0.5
MAX_KEPT_TILT = 15.0

# Mesh indices: both corners of the eye at the picture's left, of the other eye, and of the mouth.
_LEFT_EYE, _RIGHT_EYE, _MOUTH = (33, 133), (362, 263), (61, 291)

# A detection counts as a face when the detector and the mesh both say so. Weaker detections of the same face do not
# count, but help to place it.
MIN_SCORE = 0.5
MIN_PRESENCE = 0.5
MIN_BLENDED_SCORE = 0.3

# The short-range detector misses faces that fill the frame: it needs to see where they end.
FRAME_MARGIN = 0.25

# A face of 40 px in a 1366-px photo has 6 px in the detector's 192-px input, half of what it needs. Larger pictures are
# therefore searched again in overlapping tiles; up to VGA size, one look at the whole picture finds 40-px faces.
LONG_SIDE = 1366
TILED_ABOVE = 640
TILE = 320
TILE_OVERLAP = 56


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """One face of a picture.

    Attributes:
        box: left, top, width, height in whole pixels, clipped to the picture: what the landmarks span.
        score: the detector's confidence that this is a face, 0..1.
        landmarks: float32 (468, 2), x and y in pixels of the picture; order of MediaPipe's face mesh. May lie outside
            the picture when the face does.
        crop: uint8 (48, 48), grey, aligned.
    """

    box: tuple[int, int, int, int]
    score: float
    landmarks: np.ndarray
    crop: np.ndarray


def eyes_and_mouth(landmarks: np.ndarray) -> np.ndarray:
    """Returns the centres of the eye at the picture's left, of the other eye and of the mouth: (3, 2), from (468, 2)."""
    return np.stack([landmarks[list(pair)].mean(axis=0) for pair in (_LEFT_EYE, _RIGHT_EYE, _MOUTH)])


def align(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cuts out a face so that its eyes and mouth lie where they lie, on average, in FER-2013's Training set, but for its tilt.

    The map is that of `alignment`: a turn, a scale and a shift, without mirroring or shear.

    Args:
        image: uint8, grey (h, w) or RGB (h, w, 3).
        landmarks: float (468, 2), pixels of `image`.

    Returns:
        uint8 (48, 48) grey face. What lies outside the picture is filled with its mirror image.
    """
    crop = warp(image, alignment(landmarks), CROP_SIZE, cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101)
    return crop if crop.ndim == 2 else cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)


def alignment(landmarks: np.ndarray) -> np.ndarray:
    """Returns the similarity, float64 (2, 3), from the picture's coordinates to those of its aligned 48x48 face.

    It is that of `upright`, turned back about the middle of eyes and mouth by `KEPT_TILT` of the head's tilt, but by no more than
    `MAX_KEPT_TILT`.

    Args:
        landmarks: float (468, 2), pixels of the picture.
    """
    matrix, middle = upright(landmarks), np.mean(REFERENCE_POINTS, axis=0)
    tilt = np.degrees(np.arctan2(-matrix[1, 0], matrix[0, 0]))
    kept = np.radians(np.clip(KEPT_TILT * tilt, -MAX_KEPT_TILT, MAX_KEPT_TILT))
    back = np.array([[np.cos(kept), -np.sin(kept)], [np.sin(kept), np.cos(kept)]])
    return np.hstack([back @ matrix[:, :2], (back @ (matrix[:, 2] - middle) + middle)[:, np.newaxis]])


def upright(landmarks: np.ndarray) -> np.ndarray:
    """Returns the similarity, float64 (2, 3), that brings eyes and mouth nearest to `REFERENCE_POINTS`, by squared distance.

    Args:
        landmarks: float (468, 2), pixels of the picture.
    """
    return _similarity(eyes_and_mouth(np.asarray(landmarks, dtype=np.float64)), np.array(REFERENCE_POINTS))


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares similarity (2, 3) that takes the points `source` (n, 2) to `target` (n, 2)."""
    # With points as complex numbers a similarity is z -> a * z + b, and least squares has this closed form.
    z, w = source @ (1, 1j), target @ (1, 1j)
    centred = z - z.mean()
    a = np.vdot(centred, w - w.mean()) / max(np.vdot(centred, centred).real, 1e-9)
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


class FaceFinder:
    """Finds every face in a picture. Thread-safe: one lock, since the networks inside are not.

    Nothing is kept from one picture to the next, so an answer depends on its picture alone.
    """

    def __init__(self):
        """Loads the networks (about 0.1 s)."""
        self._lock = threading.Lock()
        self._short_range = FaceDetector.short_range(margin=FRAME_MARGIN)
        self._full_range = FaceDetector.full_range()
        self._mesh = FaceMesh()

    def find(self, rgb: np.ndarray) -> list[DetectedFace]:
        """Returns the faces of a picture from left to right; none when there is none.

        Args:
            rgb: uint8 (h, w, 3), as `read_image` returns it.

        Raises:
            ValueError: `rgb` has another shape or type.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
            raise ValueError(f"rgb must be a uint8 array of shape (h, w, 3). Received: {rgb.dtype} {rgb.shape}")
        faces: list[DetectedFace] = []
        with self._lock:
            for box, eyes, score in _merge(self._detect(rgb)):
                landmarks, presence = self._mesh(rgb, box, eyes)
                if presence < MIN_PRESENCE or any(_is_inside(landmarks.mean(axis=0), face.box) for face in faces):
                    continue
                visible = _bounds(landmarks, rgb.shape[1], rgb.shape[0])
                if visible[2] > 0 and visible[3] > 0:
                    faces.append(DetectedFace(visible, score, landmarks, align(rgb, landmarks)))
        return sorted(faces, key=lambda face: face.box)

    def _detect(self, rgb: np.ndarray) -> Detections:
        scale = min(1.0, LONG_SIDE / max(rgb.shape[:2]))
        small = rgb
        if scale < 1:
            small = area_resize(rgb, *(max(1, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0])))
        found = [self._short_range(small, MIN_BLENDED_SCORE), self._full_range(small, MIN_BLENDED_SCORE)]
        for left, top in _tiles(small.shape[1], small.shape[0]):
            boxes, keypoints, scores = self._full_range(small[top : top + TILE, left : left + TILE], MIN_BLENDED_SCORE)
            shift = np.float32([left, top])
            found.append(Detections(boxes + np.tile(shift, 2), keypoints + shift, scores))
        stretch = np.float32([rgb.shape[1] / small.shape[1], rgb.shape[0] / small.shape[0]])
        boxes, keypoints, scores = (np.concatenate(part) for part in zip(*found, strict=True))
        return Detections(boxes * np.tile(stretch, 2), keypoints * stretch, scores)


def _tiles(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Left and top of each tile of a picture that is too large to be searched in one piece."""
    if max(width, height) <= TILED_ABOVE:
        return
    for top in _spread(height):
        for left in _spread(width):
            yield left, top


def _spread(length: int) -> list[int]:
    count = max(1, int(np.ceil((length - TILE_OVERLAP) / (TILE - TILE_OVERLAP))))
    return [round(position) for position in np.linspace(0, max(0, length - TILE), count)]


def _merge(found: Detections) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Blends detections of the same face, weighted by their scores (BlazeFace's substitute for plain suppression).

    Yields:
        box (4,), eyes (2, 2), best score; the highest score first, none under `MIN_SCORE`.
    """
    order = np.argsort(-found.scores, kind="stable")
    while len(order) and found.scores[order[0]] >= MIN_SCORE:
        best = found.boxes[order[0]]
        same = _overlap(best, found.boxes[order]) > 0.3
        same[0] = True  # also when its box is empty
        group, order = order[same], order[~same]
        weights = found.scores[group] / found.scores[group].sum()
        box = (found.boxes[group] * weights[:, np.newaxis]).sum(axis=0)
        eyes = (found.keypoints[group, :2] * weights[:, np.newaxis, np.newaxis]).sum(axis=0)
        yield box, eyes, float(found.scores[group[0]])


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box (4,) with each of `boxes` (n, 4): (n,), 0..1."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return shared / np.maximum(areas - shared, 1e-6)


def _bounds(landmarks: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width, height of what the landmarks span inside a picture; no width or height when that is nothing."""
    left, top = np.clip(np.floor(landmarks.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(landmarks.max(axis=0)), 0, (width, height)).astype(int)
    return int(left), int(top), int(right - left), int(bottom - top)


def _is_inside(point: np.ndarray, box: tuple[int, int, int, int]) -> bool:
    left, top, width, height = box
    return left <= point[0] < left + width and top <= point[1] < top + height
