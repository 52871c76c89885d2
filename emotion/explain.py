"""Why: what the face shows, measured on its landmarks, and where on it the network found its evidence.

The two are independent. Cues never see the network's answer and the network never sees the landmarks' ratios, so a cue can
contradict the answer; neither says what the person feels.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from emotion.faces import CROP_SIZE, alignment, eyes_and_mouth
from emotion.labels import EMOTIONS, index_of

NEUTRAL = {
    "brow_height": (0.292, 0.046),
    "brow_gap": (0.415, 0.024),
    "eye_opening": (0.129, 0.027),
    "mouth_corners": (0.007, 0.041),
    "mouth_opening": (0.026, 0.021),
    "mouth_width": (0.754, 0.075),
    "upper_lip": (0.213, 0.028),
}
"""Ratio -> median and spread (1.4826 x median absolute deviation: the standard deviation, were it a normal distribution) over
faces of FER-2013's Training set labelled neutral: 923 of them, measured by benchmarks/measure_cues.py."""

WORDS = {
    "brow_height": ("brows lowered", "brows raised"),
    "brow_gap": ("brows drawn together", None),
    "eye_opening": ("eyes narrowed", "eyes wide open"),
    "mouth_corners": ("mouth corners down", "mouth corners up"),
    "mouth_opening": (None, "mouth open"),
    "mouth_width": ("mouth drawn narrow", "mouth stretched wide"),
    "upper_lip": ("upper lip raised", None),
}
"""Ratio -> words for an unusually small and an unusually large value; None where that has no meaning of its own."""

NOTABLE = 2.0
"""A cue is reported when its ratio is at least this many spreads away from the neutral median."""

MAX_TURN = 0.4
"""Largest `turn` of a head whose ratios are compared: about 30 degrees, where the eyes look 13 % nearer to each other."""

# Mesh indices: first the half of the face at the picture's left, then the same points of the other half.
_BROWS = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
_INNER_BROWS = (55, 285)
_UPPER_LIDS, _LOWER_LIDS = (160, 159, 158, 387, 386, 385), (144, 145, 153, 373, 374, 380)
_MOUTH_CORNERS = (61, 291)
_INNER_LIPS = (13, 14)  # upper, lower
_UPPER_LIP, _NOSE_BASE = (37, 267), (97, 2, 326)
_NOSE_TIP = 1


@dataclass(frozen=True)
class Cue:
    """One thing a face shows more, or less, than neutral faces do.

    Attributes:
        name: the ratio, a key of `NEUTRAL`.
        words: what it looks like, such as "brows raised".
        value: the ratio measured on this face, as a share of the distance between the eyes.
        neutral: the ratio's median over neutral faces.
        strength: how many spreads lie between them, positive; at least `NOTABLE`.
        direction: "above" or "below" the neutral median.
    """

    name: str
    words: str
    value: float
    neutral: float
    strength: float
    direction: str


def cues(landmarks: np.ndarray) -> list[Cue]:
    """Returns what is notable about a face, strongest first; nothing for a plain face or a head turned beyond `MAX_TURN`.

    What landmarks in two dimensions cannot tell:

    - A nodding head looks like a changing face: chin down brings the brows nearer to the eyes and seems to lift the mouth
      corners, chin up does the reverse. A head turned by less than `MAX_TURN` still makes heights up to 15 % too large.
    - Faces differ at rest: high brows or narrow eyes may be how this person always looks. The comparison is with other
      people's neutral faces, a quarter of which (24 %) show some cue themselves, most often an open mouth (11 %).
    - The mesh follows a smile or a dropped jaw well, a frown badly: sad faces get "mouth corners down" no oftener than neutral
      ones (2 %). A wrinkled nose and raised inner brows, marks of disgust, fear and sadness, told those classes from neutral no
      better than chance and are not reported. Percentages: benchmarks/measure_cues.py.

    Args:
        landmarks: float (468, 2), pixels; order of MediaPipe's face mesh.

    Raises:
        ValueError: another shape.
    """
    if abs(turn(landmarks)) > MAX_TURN:
        return []
    found = []
    for name, value in measure(landmarks).items():
        median, spread = NEUTRAL[name]
        distance = (value - median) / spread
        words = WORDS[name][distance > 0]
        if words and abs(distance) >= NOTABLE:
            found.append(Cue(name, words, value, median, abs(distance), "above" if distance > 0 else "below"))
    return sorted(found, key=lambda cue: -cue.strength)


def measure(landmarks: np.ndarray) -> dict[str, float]:
    """Measures a face: name -> length as a share of the distance between the centres of the eyes, along or across their line.

    The picture's scale and the head's roll therefore do not matter; how it is turned or nods does.

    - brow_height: middle of the brows above the eyes; brow_gap: between the inner ends of the brows.
    - eye_opening: between the lids, mean of both eyes.
    - mouth_corners: corners above the middle of the lips; mouth_opening: between the lips; mouth_width: between the corners.
    - upper_lip: from the nose down to the upper lip.

    Args:
        landmarks: float (468, 2), pixels.

    Raises:
        ValueError: another shape.
    """
    x, y = _face_coordinates(landmarks).T

    def height(points: tuple[int, ...]) -> float:
        return float(-y[list(points)].mean())

    def width(pair: tuple[int, int]) -> float:
        return float(x[pair[1]] - x[pair[0]])

    return {
        "brow_height": height(_BROWS),
        "brow_gap": width(_INNER_BROWS),
        "eye_opening": height(_UPPER_LIDS) - height(_LOWER_LIDS),
        "mouth_corners": height(_MOUTH_CORNERS) - height(_INNER_LIPS),
        "mouth_opening": height(_INNER_LIPS[:1]) - height(_INNER_LIPS[1:]),
        "mouth_width": width(_MOUTH_CORNERS),
        "upper_lip": height(_NOSE_BASE) - height(_UPPER_LIP),
    }


def turn(landmarks: np.ndarray) -> float:
    """Returns how far a head is turned: how far the tip of the nose lies beside the middle of the eyes, as a share of their
    distance. 0: towards the camera; positive: towards the picture's right.

    Args:
        landmarks: float (468, 2), pixels.

    Raises:
        ValueError: another shape.
    """
    return float(_face_coordinates(landmarks)[_NOSE_TIP, 0])


def _face_coordinates(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks seen from between the eyes: x along the line of the eyes, y down the face, unit the eyes' distance."""
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if landmarks.shape != (468, 2):
        raise ValueError(f"landmarks must have shape (468, 2). Received: {landmarks.shape}")
    left, right, _ = eyes_and_mouth(landmarks)
    across = right - left
    # Two eyes in one place belong to a head seen from the side: its ratios become huge, and so does its turn.
    squared = max(float(across @ across), 1e-9)
    down = np.array([-across[1], across[0]])
    return (landmarks - (left + right) / 2) @ np.stack([across, down], axis=1) / squared


def activation_map(evidence: np.ndarray, emotion: str) -> np.ndarray:
    """Turns the model's second output into a heat map of the face: where it saw evidence for an emotion.

    This is the class activation map of Zhou et al. 2016 ("Learning Deep Features for Discriminative Localization"): the share
    of each place in the emotion's score. It says where, not how much (the largest value is always 1), and is coarse: one cell
    of `evidence` covers several pixels and answers to its surroundings too.

    Args:
        evidence: float (h, w, 7), order of `EMOTIONS`: one face's map from a model of `emotion.activation`.
        emotion: one of `EMOTIONS`.

    Returns:
        float32 (48, 48) over the aligned face, 0..1; 0 where there is no evidence or evidence against the emotion, and all 0
        when there is none anywhere.

    Raises:
        ValueError: unknown emotion, or another shape.
    """
    evidence = np.asarray(evidence, dtype=np.float32)
    if evidence.ndim != 3 or evidence.shape[2] != len(EMOTIONS) or 0 in evidence.shape:
        raise ValueError(f"evidence must have shape (h, w, {len(EMOTIONS)}). Received: {evidence.shape}")
    score = np.maximum(evidence[..., index_of(emotion)], 0)
    heat = np.maximum(cv2.resize(score, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_CUBIC), 0)  # cubics swing below 0
    return heat / max(float(heat.max()), 1e-9)


def overlay(image: np.ndarray, heat: np.ndarray, landmarks: np.ndarray, *, opacity: float = 0.7) -> np.ndarray:
    """Lays a heat map over the face in the photo that it belongs to.

    Colours run from dark blue to yellow in even steps of lightness (viridis), so that colour-blind readers and grey prints keep
    their order; the less evidence, the more of the photo shows through.

    Args:
        image: uint8 RGB (h, w, 3).
        heat: float (48, 48), 0..1, over the aligned face.
        landmarks: float (468, 2), pixels of `image`: those the face was aligned by.
        opacity: of the hottest place, 0..1.

    Returns:
        uint8 RGB (h, w, 3), a new picture.

    Raises:
        ValueError: `image` or `heat` is not as described.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 of shape (h, w, 3). Received: {image.dtype} {image.shape}")
    if heat.shape != (CROP_SIZE, CROP_SIZE):
        raise ValueError(f"heat must have shape ({CROP_SIZE}, {CROP_SIZE}). Received: {heat.shape}")
    result = image.copy()
    matrix = alignment(landmarks)
    left, top, right, bottom = _square_in_picture(matrix, image.shape[1], image.shape[0])
    if left >= right or top >= bottom:
        return result
    matrix[:, 2] += matrix[:, :2] @ (left, top)
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV's coordinates are those of pixel centres
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    heat = cv2.warpAffine(np.clip(heat, 0, 1).astype(np.float32), matrix, (right - left, bottom - top), flags=flags)
    colours = cv2.applyColorMap(cv2.convertScaleAbs(heat, alpha=255), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    part, cover = result[top:bottom, left:right], heat * np.float32(opacity)
    part[:] = cv2.blendLinear(part, np.ascontiguousarray(colours), 1 - cover, cover)
    return result


def _square_in_picture(matrix: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels that hold the aligned square's corners, clipped to the picture."""
    square = np.array([(0, 0), (CROP_SIZE, 0), (CROP_SIZE, CROP_SIZE), (0, CROP_SIZE)])
    # One heat pixel more on each side: there the map fades out.
    square = np.where(square > 0, square + 1, square - 1)
    corners = (square - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, (width, height)).astype(int)
    return int(left), int(top), int(right), int(bottom)
