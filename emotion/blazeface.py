"""MediaPipe's three small face networks, run by LiteRT: two face detectors and the face mesh.

The model files lie in emotion/models, as the mediapipe 0.10.21 wheel carries them (Apache-2.0). The package itself is not
used: importing it takes seconds (more where TensorFlow is installed), it holds NumPy below 2 and brings JAX and half a gigabyte
along, its Python solutions are not thread-safe, and they give no way to run the mesh on a chosen region.
The pre- and post-processing here follow MediaPipe's own graphs (mediapipe/modules/face_detection and face_landmark).

Coordinates are continuous: pixel (column i, row j) covers [i, i+1) x [j, j+1).

Sources:
    Bazarevsky et al. 2019, "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs" (detectors);
    Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs" (mesh).
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from emotion.images import area_resize

THREADS = 2
MODELS = Path(__file__).resolve().parent / "models"


class Detections(NamedTuple):
    """n possible faces of one picture, in its pixels.

    Attributes:
        boxes: float32 (n, 4): left, top, right, bottom; may reach outside the picture.
        keypoints: float32 (n, 6, 2): the eye at the left of the picture, the other eye, nose tip, mouth, two ears.
        scores: float32 (n,), 0..1.
    """

    boxes: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray


def warp(image: np.ndarray, matrix: np.ndarray, size: int, interpolation: int, border: int) -> np.ndarray:
    """Cuts a square out of a picture through an affine map, without aliasing when it shrinks.

    Args:
        image: uint8 (h, w) or (h, w, channels).
        matrix: float (2, 3), from continuous picture coordinates to those of the square.
        size: side of the square in pixels.
        interpolation: cv2.INTER_LINEAR or cv2.INTER_CUBIC.
        border: what lies outside the picture: cv2.BORDER_CONSTANT for black, cv2.BORDER_REFLECT_101 for its mirror image.

    Returns:
        uint8 (size, size) or (size, size, channels).
    """
    shrink = 1 / np.sqrt(abs(np.linalg.det(matrix[:, :2])) + 1e-12)
    steps = int(np.clip(np.rint(shrink), 1, 16))
    scaled = matrix * steps
    scaled[:, 2] += scaled[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV's coordinates are those of pixel centres
    side = size * steps
    square = cv2.warpAffine(image, scaled, (side, side), flags=interpolation, borderMode=border)
    return square if steps == 1 else cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)


class _Network:
    """A LiteRT model with one picture in. Not thread-safe: its owner holds a lock."""

    def __init__(self, name: str):
        self._interpreter = Interpreter(str(MODELS / name), num_threads=THREADS)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        self._interpreter.set_tensor(self._input, picture[np.newaxis])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


class FaceDetector:
    """BlazeFace: a picture of any size -> possible faces."""

    def __init__(self, name: str, size: int, grids: tuple[tuple[int, int], ...], margin: float = 0.0):
        """Loads the model.

        Args:
            name: model file in emotion/models.
            size: side of the network's square input.
            grids: (cells a side, anchors a cell) of each output layer, in the order of the network's output.
            margin: black border added on each side, as a share of the picture's longer side.
        """
        self._network = _Network(name)
        self._size = size
        self._margin = margin
        self._anchors = np.concatenate([_anchors(cells, repeats) for cells, repeats in grids])

    @classmethod
    def short_range(cls, margin: float) -> "FaceDetector":
        """For faces that take more than about a sixth of the picture."""
        return cls("face_detection_short_range.tflite", 128, ((16, 2), (8, 6)), margin)

    @classmethod
    def full_range(cls) -> "FaceDetector":
        """For faces that take from a twentieth to a half of the picture."""
        return cls("face_detection_full_range_sparse.tflite", 192, ((48, 1),))

    def __call__(self, rgb: np.ndarray, min_score: float) -> Detections:
        """Finds possible faces, several for one face as a rule.

        Args:
            rgb: uint8 (h, w, 3).
            min_score: detections under it are dropped, 0..1.
        """
        height, width = rgb.shape[:2]
        scale = self._size / (max(height, width) * (1 + 2 * self._margin))
        fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
        left, top = (self._size - fitted[0]) // 2, (self._size - fitted[1]) // 2
        # Black around the picture, as in MediaPipe; and a face that fills the frame is found far better with some of it.
        square = np.zeros((self._size, self._size, 3), np.uint8)
        resized = area_resize(rgb, *fitted) if scale < 1 else cv2.resize(rgb, fitted, interpolation=cv2.INTER_LINEAR)
        square[top : top + fitted[1], left : left + fitted[0]] = resized
        numbers, logits = self._network(square.astype(np.float32) / 127.5 - 1)
        scores = _sigmoid(logits[:, 0])
        keep = scores >= min_score
        # Per anchor: centre, width and height, then six key points; in input pixels, relative to the anchor's centre.
        points = numbers[keep].reshape(-1, 8, 2)
        half = points[:, 1] / 2
        points = points + self._anchors[keep, np.newaxis] * self._size
        corners = np.stack([points[:, 0] - half, points[:, 0] + half], axis=1)
        offset, stretch = np.float32([left, top]), np.float32([width / fitted[0], height / fitted[1]])
        return Detections(
            ((corners - offset) * stretch).reshape(-1, 4), (points[:, 2:] - offset) * stretch, scores[keep]
        )


def _anchors(cells: int, repeats: int) -> np.ndarray:
    """Centres of a grid's cells in 0..1, row by row, each `repeats` times: float32 (cells * cells * repeats, 2)."""
    centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
    x, y = np.meshgrid(centres, centres)
    return np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), repeats, axis=0)


class FaceMesh:
    """468 points on a face whose place is roughly known."""

    SIZE = 192
    MARGIN = 1.5  # the region's side over the face's, as the mesh was trained

    def __init__(self):
        self._network = _Network("face_landmark.tflite")

    def __call__(self, rgb: np.ndarray, box: np.ndarray, eyes: np.ndarray) -> tuple[np.ndarray, float]:
        """Places the mesh, then once more on the region that its own points span.

        The second look makes the answer depend less on which detector found the face, finds more of the hard faces and
        turns away more of what is none.

        Args:
            rgb: uint8 (h, w, 3).
            box: (4,) left, top, right, bottom of the face in pixels.
            eyes: (2, 2) the eye at the left of the picture and the other: their line is turned level first.

        Returns:
            float32 (468, 2) points in pixels, and the probability 0..1 that the region shows a face.
        """
        points, _ = self._place(rgb, (box[:2] + box[2:]) / 2, max(box[2:] - box[:2]), eyes[1] - eyes[0])
        along = points[_OUTER_EYE_CORNERS[1]] - points[_OUTER_EYE_CORNERS[0]]
        level = points @ _turn(along).T
        low, high = level.min(axis=0), level.max(axis=0)
        return self._place(rgb, (low + high) / 2 @ _turn(along), max(high - low), along)

    def _place(self, rgb: np.ndarray, centre: np.ndarray, side: float, along: np.ndarray) -> tuple[np.ndarray, float]:
        scale = self.SIZE / max(side * self.MARGIN, 1e-3)
        turn = _turn(along) * scale
        matrix = np.column_stack([turn, self.SIZE / 2 - turn @ centre])
        # Black outside: with the border repeated, as in MediaPipe, 1 in 200 of FER-2013's tight faces is lost.
        region = warp(rgb, matrix, self.SIZE, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
        numbers, logit = self._network(region.astype(np.float32) / 255)
        points = (numbers.reshape(-1, 3)[:, :2] - self.SIZE / 2) @ turn / scale**2 + centre
        return points.astype(np.float32), float(_sigmoid(logit.ravel()[0]))


_OUTER_EYE_CORNERS = (33, 263)


def _turn(along: np.ndarray) -> np.ndarray:
    """The rotation (2, 2) that turns the direction `along` (2,) level."""
    x, y = along / max(float(np.linalg.norm(along)), 1e-6)
    return np.array([[x, y], [-y, x]])


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))  # float32's exp overflows beyond
