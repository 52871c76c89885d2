"""Photo -> faces with seven probabilities. Photos, webcam frames and batches all go through `EmotionRecognizer`."""

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from emotion.faces import CROP_SIZE, DetectedFace, FaceFinder, read_image
from emotion.labels import EMOTIONS

DEFAULT_MODEL = Path(__file__).resolve().parent.parent / "saved_models" / "emotion_model_int8.tflite"
"""The int8 file: its answers are those of the float32 file but for one face in several hundred, in a third of the time."""
THREADS = 2


class ModelError(RuntimeError):
    """The saved model is missing or is not one of this project's. The message says what to do."""


@dataclass(frozen=True, eq=False)
class Face(DetectedFace):
    """A face and the emotion it shows. Adds to `DetectedFace`:

    Attributes:
        probabilities: float32 (7,), order of `EMOTIONS`, sum 1.
        evidence: float32 (h, w, 7), where the model saw evidence for each emotion (`emotion.explain.activation_map`); None
            when the model does not tell.
    """

    probabilities: np.ndarray
    evidence: np.ndarray | None = field(default=None, kw_only=True)

    @property
    def emotion(self) -> str:
        """The most probable of `EMOTIONS`."""
        return EMOTIONS[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float:
        """The probability of `emotion`, 0..1."""
        return float(self.probabilities.max())

    def to_dict(self) -> dict:
        """Returns this face as the `/predict` endpoint sends it: plain JSON types, pixels of the uploaded image."""
        return {
            "box": list(self.box),
            "emotion": self.emotion,
            "probabilities": {name: float(p) for name, p in zip(EMOTIONS, self.probabilities, strict=True)},
            "landmarks": [[round(float(x), 1), round(float(y), 1)] for x, y in self.landmarks],
        }


class EmotionRecognizer:
    """Finds the faces of a picture and reads their apparent emotion. Thread-safe; the model is loaded once, here.

    Attributes:
        record: the model's record (`emotion_model.json`): labels, temperature, metrics and more.
        gives_evidence: whether the model says where its evidence lies.
    """

    def __init__(self, model_path: Path | str | None = None):
        """Loads the model and its record.

        Args:
            model_path: a .tflite file. Its record lies beside it: same name, ending .json (emotion_model_int8.tflite
                shares emotion_model.json). None: `DEFAULT_MODEL`.

        Raises:
            ModelError: a file is missing, broken, or does not follow the contract: 48x48 grey levels 0..255 in, seven
                probabilities in the order of `EMOTIONS` out.
        """
        path = DEFAULT_MODEL if model_path is None else Path(model_path)
        self.record = read_record(path)
        self._temperature = float(self.record.get("temperature", 1.0))
        self._interpreter, self._input, self._output, self._evidence = _load(path)
        self.gives_evidence = self._evidence is not None
        self._lock = threading.Lock()
        self._finder = FaceFinder()

    def predict(self, image: object) -> list[Face]:
        """Returns the faces of a picture from left to right; none when there is none.

        Args:
            image: anything that `emotion.faces.read_image` takes.

        Raises:
            emotion.faces.ImageError: the picture cannot be read.
        """
        found = self._finder.find(read_image(image))
        if not found:
            return []
        probabilities, evidence = self._answer(np.stack([face.crop for face in found]))
        return [
            Face(face.box, face.score, face.landmarks, face.crop, row, evidence=where)
            for face, row, where in zip(found, probabilities, evidence, strict=True)
        ]

    def predict_crops(self, crops: np.ndarray) -> np.ndarray:
        """Reads aligned faces, without looking for faces in them.

        Args:
            crops: uint8 (n, 48, 48) grey; n may be 0.

        Returns:
            float32 (n, 7) probabilities, order of `EMOTIONS`; each row sums to 1.

        Raises:
            ValueError: another shape or type.
        """
        crops = np.asarray(crops)
        if crops.dtype != np.uint8 or crops.shape[1:] != (CROP_SIZE, CROP_SIZE):
            raise ValueError(f"crops must be a uint8 array of shape (n, 48, 48). Received: {crops.dtype} {crops.shape}")
        return self._answer(crops)[0]

    def _answer(self, crops: np.ndarray) -> tuple[np.ndarray, list[np.ndarray | None]]:
        """Returns calibrated probabilities (n, 7) and each crop's evidence (h, w, 7), None without one."""
        probabilities = np.empty((len(crops), len(EMOTIONS)), dtype=np.float32)
        evidence = []
        with self._lock:
            # One face at a time: a batch is no faster on two cores, and resizing the input would cost time.
            for row, crop in zip(probabilities, crops, strict=True):
                self._interpreter.set_tensor(self._input, crop[np.newaxis, ..., np.newaxis].astype(np.float32))
                self._interpreter.invoke()
                row[:] = self._interpreter.get_tensor(self._output)[0]
                evidence.append(self._interpreter.get_tensor(self._evidence)[0] if self.gives_evidence else None)
        return _calibrate(probabilities, self._temperature), evidence


def _calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log p / T): T above 1 makes over-confident probabilities milder, and never changes their order."""
    if temperature == 1:
        return probabilities
    logits = np.log(np.maximum(probabilities, 1e-12)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def read_record(model_path: Path) -> dict:
    """Returns the record that lies beside a .tflite file; the int8 file shares that of the float32 one.

    Raises:
        ModelError: a file is missing, or the record does not follow the contract.
    """
    path = model_path.with_name(model_path.stem.removesuffix("_int8") + ".json")
    for needed in (model_path, path):
        if not needed.is_file():
            raise ModelError(
                f"The model must be a .tflite file with its .json record beside it. Not found: {needed}. "
                "Fetch the folder saved_models/ with the repository, or train and export a model (see README.md)."
            )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"The model's record must be JSON: export the model again. Received: {path} ({error})") from error
    labels = record.get("labels") if isinstance(record, dict) else None
    if labels != list(EMOTIONS):
        raise ModelError(f"The record's labels must be {list(EMOTIONS)}: export the model again. Received: {labels} ({path})")
    temperature = record.get("temperature", 1.0)
    if not isinstance(temperature, (int, float)) or not 0 < temperature < float("inf"):
        raise ModelError(f"The record's temperature must be a positive number. Received: {temperature!r} ({path})")
    return record


def _load(path: Path) -> tuple[Interpreter, int, int, int | None]:
    """Returns the interpreter and the indices of its input, its probabilities and its evidence (None without one)."""
    try:
        interpreter = Interpreter(str(path), num_threads=THREADS)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"The model must be a .tflite file: export it again. Received: {path} ({error})") from error
    inputs = [detail for detail in interpreter.get_input_details() if tuple(detail["shape"][1:]) == (CROP_SIZE, CROP_SIZE, 1)]
    # By shape: a model may also return a class activation map (n, h, w, 7).
    maps = [d["index"] for d in interpreter.get_output_details() if len(d["shape"]) == 4 and d["shape"][3] == len(EMOTIONS)]
    outputs = [d for d in interpreter.get_output_details() if len(d["shape"]) == 2 and d["shape"][1] == len(EMOTIONS)]
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0]["dtype"] != np.float32 or outputs[0]["dtype"] != np.float32:
        raise ModelError(
            "The model must take float32 (n, 48, 48, 1) and return float32 (n, 7): export it again. "
            f"Received: {path} with inputs {_shapes(interpreter.get_input_details())} and outputs "
            f"{_shapes(interpreter.get_output_details())}"
        )
    return interpreter, inputs[0]["index"], outputs[0]["index"], maps[0] if maps else None


def _shapes(details: list[dict]) -> list[str]:
    return [f"{detail['dtype'].__name__} {tuple(map(int, detail['shape']))}" for detail in details]
