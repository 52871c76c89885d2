"""Faces of single pictures -> faces followed through time: a number that stays, probabilities that do not jitter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emotion.recognizer import Face

SMOOTHING = 0.3
"""Time constant of the smoothing in seconds: after a sudden change, 63 % of it show after this time, 95 % after three times."""

MAX_GAP = 1.0
"""Seconds that a face may be out of sight (a turned head, a hand in front) and still be the same face afterwards."""

# Overlap (intersection over union) that makes two boxes the same face. At 15 answers a second a face that moves by two
# thirds of its width between two answers still passes.
MIN_OVERLAP = 0.2

# Time constant in seconds of a face's speed: long enough for the jitter of its box to cancel out.
_SPEED_MEMORY = 0.2


@dataclass(frozen=True, eq=False)
class TrackedFace(Face):
    """A face of one picture and the number it keeps through time; its probabilities are smoothed. Adds to `Face`:

    Attributes:
        id: 1 for the first face that was seen, then 2, 3, ...; never given twice by one tracker.
    """

    id: int


class FaceTracker:
    """Follows faces from picture to picture, for one webcam stream or one clip. Not thread-safe: one stream, one tracker."""

    def __init__(self, *, smoothing: float = SMOOTHING, max_gap: float = MAX_GAP):
        """Starts with no face.

        Args:
            smoothing: time constant in seconds of the exponential smoothing; 0 leaves the probabilities as they are.
            max_gap: seconds after which a face that is out of sight is forgotten.

        Raises:
            ValueError: one of them is negative.
        """
        if not (smoothing >= 0 and max_gap >= 0):
            raise ValueError(f"smoothing and max_gap must be 0 or more seconds. Received: {smoothing}, {max_gap}")
        self._smoothing = smoothing
        self._max_gap = max_gap
        self._tracks: list[_Track] = []
        self._count = 0
        self._now = -math.inf

    def update(self, faces: Sequence[Face], seconds: float) -> list[TrackedFace]:
        """Takes the faces of the next picture.

        Args:
            faces: as `EmotionRecognizer.predict` returns them.
            seconds: when the picture was taken, on any clock that never goes back (a clip's time, `time.monotonic()`).

        Returns:
            The same faces in the same order, with `id` and smoothed probabilities.

        Raises:
            ValueError: `seconds` is smaller than in the call before.
        """
        if not seconds >= self._now:
            raise ValueError(f"seconds must never go back; take a new FaceTracker. Received: {seconds} after {self._now}")
        self._now = seconds
        self._tracks = [track for track in self._tracks if seconds - track.seen <= self._max_gap]
        matches = self._match(np.array([face.box for face in faces], dtype=float).reshape(-1, 4), seconds)
        return [self._follow(face, matches.get(i), seconds) for i, face in enumerate(faces)]

    def _match(self, boxes: np.ndarray, seconds: float) -> dict[int, "_Track"]:
        """Gives each box (n, 4) at most one track, the pair with the largest overlap first."""
        # The predicted place carries a face past another one that hides it; the last place finds a face that has stopped.
        overlaps = np.array([
            np.maximum(overlap(track.box, boxes), overlap(track.predict(seconds), boxes)) for track in self._tracks
        ]).reshape(len(self._tracks), len(boxes))
        matches: dict[int, _Track] = {}
        while overlaps.size and overlaps.max() >= MIN_OVERLAP:
            row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
            matches[int(column)] = self._tracks[row]
            overlaps[row], overlaps[:, column] = 0, 0
        return matches

    def _follow(self, face: Face, track: "_Track | None", seconds: float) -> TrackedFace:
        if track is None:
            self._count += 1
            track = _Track(self._count, np.array(face.box, dtype=float), np.zeros(2), seconds, face.probabilities)
            self._tracks.append(track)
        else:
            track.move(face, seconds, self._smoothing)
        return TrackedFace(face.box, face.score, face.landmarks, face.crop, track.probabilities, track.id)


@dataclass(eq=False)
class _Track:
    """What is known of one face. `box` and `speed` are in pixels, `seen` in seconds."""

    id: int
    box: np.ndarray
    speed: np.ndarray
    seen: float
    probabilities: np.ndarray

    def predict(self, seconds: float) -> np.ndarray:
        """Returns where the box is by now if the face went on as it did."""
        shift = self.speed * (seconds - self.seen)
        return self.box + np.append(shift, (0, 0))

    def move(self, face: Face, seconds: float, smoothing: float) -> None:
        passed = seconds - self.seen
        box = np.array(face.box, dtype=float)
        if passed > 0:
            speed = (box[:2] + box[2:] / 2 - self.box[:2] - self.box[2:] / 2) / passed
            self.speed = self.speed + _weight(passed, _SPEED_MEMORY) * (speed - self.speed)
        weight = np.float32(_weight(passed, smoothing))
        self.probabilities = (1 - weight) * self.probabilities + weight * face.probabilities
        self.box, self.seen = box, seconds


def _weight(passed: float, time_constant: float) -> float:
    """The share of a new value after `passed` seconds: two short steps weigh exactly as much as one long one."""
    return 1 - math.exp(-passed / time_constant) if time_constant > 0 else 1.0


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box (4,) with each of `boxes` (n, 4), all x, y, width, height: (n,), 0..1."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    union = box[2:].prod() + boxes[:, 2:].prod(axis=1) - shared
    return shared / np.maximum(union, 1e-6)
