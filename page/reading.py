"""From an uploaded photo to what is said and drawn about its faces: what all tabs and the API share."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emotion.drawing import Tag, annotate
from emotion.explain import activation_map, overlay
from emotion.images import read_image
from emotion.labels import EMOTIONS
from emotion.verdict import NOT_SURE_BELOW, Verdict, judge, percent
from page.theme import look
from page.uploads import Settings, answer_folder, keep, photo_bytes, safe_stem


@dataclass(frozen=True)
class Reading:
    """What was read from one photo.

    Attributes:
        name: the file's name without its ending, made safe for a new file name.
        image: uint8 RGB (height, width, 3), upright.
        faces: `emotion.recognizer.Face` objects, left to right.
        ms: milliseconds from the file's bytes to the probabilities.
    """

    name: str
    image: np.ndarray
    faces: list
    ms: float

    def to_dict(self) -> dict:
        """Returns the JSON that `/predict` answers."""
        return {"faces": [face.to_dict() for face in self.faces], "ms": round(self.ms, 1)}


@dataclass(frozen=True)
class View:
    """How a reading is drawn: the index of the chosen face, the 468 landmarks, the chosen face's heat map, four emotions only."""

    chosen: int | None = None
    landmarks: bool = False
    heat: bool = False
    four: bool = False


class Reader:
    """Reads photos by one recogniser and within the operator's settings. Keeps no photo."""

    def __init__(self, recognizer: Any, settings: Settings = Settings()):  # noqa: B008 - frozen
        """`recognizer` has `predict(image) -> list[Face]` and `record`, like `emotion.recognizer.EmotionRecognizer`."""
        self.recognizer = recognizer
        self.settings = settings

    @property
    def not_sure_below(self) -> float:
        """Highest probability below which no emotion is named, 0..1."""
        return self.recognizer.record.get("not_sure_below", NOT_SURE_BELOW)

    def read(self, photo: dict) -> Reading:
        """Reads the faces of an uploaded photo.

        Args:
            photo: Gradio's description of the file.

        Raises:
            emotion.images.ImageError: it cannot be used; the message says what to do.
        """
        content = photo_bytes(photo, self.settings.max_photo_mb)
        start = time.perf_counter()
        image = read_image(content)
        faces = self.recognizer.predict(image)
        ms = 1000 * (time.perf_counter() - start)
        name = safe_stem(photo) or "photo"
        keep(self.settings.keep_folder, content, name + (Path(photo.get("path") or "").suffix or ".img"))
        return Reading(name, image, faces, ms)

    def verdict(self, face: Any, four: bool = False) -> Verdict:
        """Puts a face's probabilities into words."""
        probabilities = dict(zip(EMOTIONS, map(float, face.probabilities), strict=True))
        return judge(probabilities, not_sure_below=self.not_sure_below, four=four)

    def annotated(self, reading: Reading, view: View = View()) -> np.ndarray:
        """Draws a reading: uint8 RGB, `emotion.drawing.enlargement` times the size of the photo."""
        image, tags = reading.image, []
        if view.heat and view.chosen is not None and reading.faces[view.chosen].evidence is not None:
            face = reading.faces[view.chosen]
            image = overlay(image, activation_map(face.evidence, face.emotion), face.landmarks)
        for i, face in enumerate(reading.faces):
            verdict = self.verdict(face, view.four)
            number = f"{i + 1} " if len(reading.faces) > 1 else ""
            certainty = "" if verdict.confidence is None else f" {percent(verdict.confidence)}"
            captions = (number + verdict.label + certainty, number + verdict.label, number.strip() or verdict.label)
            emotion = look(verdict.named[0]).emotion if verdict.named else "not sure"
            tags.append(Tag(face.box, captions, emotion, face.landmarks if view.landmarks else None, view.chosen == i))
        return annotate(image, tags)

    def save(self, name: str, image: np.ndarray) -> Path:
        """Writes a picture where it is deleted after `KEEP_MINUTES`, and returns its path."""
        path = answer_folder() / f"{name}-emotions.jpg"
        Image.fromarray(image).save(path, quality=92)
        return path
