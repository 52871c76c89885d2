"""Contracts of emotion/recognizer.py, on small models made here (no TensorFlow); the trained one where it is there."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from emotion.faces import DetectedFace, FaceFinder, ImageError, read_image
from emotion.labels import EMOTIONS
from emotion.recognizer import DEFAULT_MODEL, EmotionRecognizer, ModelError

DATA = Path(__file__).parent / "data"
PROJECT = Path(__file__).parent.parent


class _Graph:
    """Writes a .tflite file: the little of the format that these tests need."""

    def __init__(self):
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, "made by a test"
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(self, shape, values=None):
        tensor = schema.TensorT()
        tensor.shape, tensor.name = list(shape), f"tensor{len(self.graph.tensors)}"
        tensor.type = schema.TensorType.FLOAT32 if values is None or values.dtype == np.float32 else schema.TensorType.INT32
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def apply(self, name, inputs, shape):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name.upper())
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), [self.tensor(shape)]
        kind = name.title().replace("_", "") + "Options"
        operator.builtinOptions = getattr(schema, kind + "T")()
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        if name == "softmax":
            operator.builtinOptions.beta = 1.0
        self.graph.operators.append(operator)
        return operator.outputs[0]

    def write(self, path, inputs, outputs):
        self.graph.inputs, self.graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(0)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))


def weights(classes=7):
    return np.random.default_rng(0).normal(0, 2e-4, (classes, 48 * 48)).astype(np.float32)


def expected(crops):
    """What the model that `write_model` writes must answer, computed by NumPy."""
    logits = crops.reshape(len(crops), -1).astype(np.float64) @ weights().T
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def write_model(folder, record=None, classes=7, side=48, with_map=False, name="emotion_model"):
    """Writes softmax(weights @ pixels), and its record; returns the model's path."""
    graph = _Graph()
    picture = graph.tensor((1, side, side, 1))
    flat = graph.apply("reshape", [picture, graph.tensor((2,), np.array([1, side * side], np.int32))], (1, side * side))
    matrix = graph.tensor((classes, side * side), weights(classes)[:, : side * side].copy())
    outputs = [graph.apply("softmax", [graph.apply("fully_connected", [flat, matrix], (1, classes))], (1, classes))]
    if with_map:  # a class activation map, put first: it must be told apart by its shape, not its place
        cells = graph.tensor((12 * 12 * 7, side * side), np.ones((12 * 12 * 7, side * side), np.float32))
        row = graph.apply("fully_connected", [flat, cells], (1, 12 * 12 * 7))
        shape = graph.tensor((4,), np.array([1, 12, 12, 7], np.int32))
        outputs.insert(0, graph.apply("reshape", [row, shape], (1, 12, 12, 7)))
    path = folder / f"{name}.tflite"
    graph.write(path, [picture], outputs)
    record = {"labels": list(EMOTIONS)} if record is None else record
    path.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def recognizer(model_path):
    return EmotionRecognizer(model_path)


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(1).integers(0, 256, (5, 48, 48)).astype(np.uint8)


def test_probabilities_are_the_models_for_grey_levels_0_to_255(recognizer, crops):
    probabilities = recognizer.predict_crops(crops)
    assert probabilities.shape == (5, 7) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected(crops), atol=1e-5)


def test_a_face_carries_the_models_evidence_and_none_where_the_model_has_none(recognizer, tmp_path):
    (face,) = recognizer.predict(DATA / "astronaut.jpg")
    assert face.evidence is None and not recognizer.gives_evidence
    mapped = EmotionRecognizer(write_model(tmp_path, with_map=True))
    (face,) = mapped.predict(DATA / "astronaut.jpg")
    assert mapped.gives_evidence
    assert face.evidence.shape == (12, 12, 7) and face.evidence.dtype == np.float32
    np.testing.assert_allclose(face.evidence, face.crop.sum(dtype=np.float64), rtol=1e-4)  # the made-up map: sum of the pixels


def test_no_crops_give_no_rows(recognizer):
    assert recognizer.predict_crops(np.empty((0, 48, 48), np.uint8)).shape == (0, 7)


@pytest.mark.parametrize("wrong", [np.zeros((2, 48, 47), np.uint8), np.zeros((48, 48), np.uint8), np.zeros((1, 48, 48))])
def test_crops_of_another_shape_or_type_are_refused_by_name(recognizer, wrong):
    with pytest.raises(ValueError, match=r"crops must be a uint8 array of shape \(n, 48, 48\)"):
        recognizer.predict_crops(wrong)


def test_a_face_says_what_the_finder_and_the_model_say(recognizer):
    image = DATA / "astronaut.jpg"
    (face,) = recognizer.predict(image)
    (found,) = FaceFinder().find(read_image(image))
    assert isinstance(face, DetectedFace)
    assert face.box == found.box and face.score == found.score
    assert np.array_equal(face.landmarks, found.landmarks) and np.array_equal(face.crop, found.crop)
    np.testing.assert_allclose(face.probabilities, expected(found.crop[np.newaxis])[0], atol=1e-5)
    assert face.emotion == EMOTIONS[face.probabilities.argmax()]
    assert face.confidence == pytest.approx(face.probabilities.max())


def test_a_face_as_a_dictionary_is_the_endpoints_json(recognizer):
    (face,) = recognizer.predict(DATA / "astronaut.jpg")
    answer = json.loads(json.dumps(face.to_dict()))
    assert set(answer) == {"box", "emotion", "probabilities", "landmarks"}
    assert answer["box"] == list(face.box) and answer["emotion"] == face.emotion
    assert list(answer["probabilities"]) == list(EMOTIONS)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert np.shape(answer["landmarks"]) == (468, 2)


def test_every_kind_of_source_gives_the_same_answer(recognizer):
    path = DATA / "grace_hopper.jpg"
    with path.open("rb") as file:
        answers = [
            recognizer.predict(source)
            for source in (path, str(path), path.read_bytes(), file, Image.open(path), read_image(path))
        ]
    assert [len(faces) for faces in answers] == [1] * len(answers)
    for (face,) in answers:
        assert np.array_equal(face.probabilities, answers[0][0].probabilities)


def test_faces_come_from_left_to_right(recognizer):
    image = read_image(DATA / "astronaut.jpg")
    faces = recognizer.predict(np.hstack([image, image, image]))
    assert len(faces) == 3
    assert [face.box[0] for face in faces] == sorted(face.box[0] for face in faces)


def test_a_picture_without_a_face_gives_no_face(recognizer):
    assert recognizer.predict(np.full((300, 400, 3), 128, np.uint8)) == []


def test_a_file_that_is_no_picture_is_an_image_error(recognizer):
    with pytest.raises(ImageError, match="save it again as JPEG or PNG"):
        recognizer.predict(b"no picture")


def test_temperature_of_the_record_softens_the_probabilities(tmp_path, crops):
    path = write_model(tmp_path, {"labels": list(EMOTIONS), "temperature": 2.0})
    softened = np.sqrt(expected(crops))
    softened /= softened.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(EmotionRecognizer(path).predict_crops(crops), softened, atol=1e-5)


def test_a_second_output_leaves_the_answer_as_it_is(tmp_path, crops):
    path = write_model(tmp_path, with_map=True)
    np.testing.assert_allclose(EmotionRecognizer(path).predict_crops(crops), expected(crops), atol=1e-5)


def test_the_record_is_the_one_beside_the_model_and_int8_shares_it(tmp_path):
    record = {"labels": list(EMOTIONS), "temperature": 1.5, "metrics": {"public_test": {}}}
    path = write_model(tmp_path, record)
    int8 = path.rename(tmp_path / "emotion_model_int8.tflite")
    assert EmotionRecognizer(int8).record == record


def test_many_threads_get_the_answers_of_one(recognizer):
    images = [read_image(DATA / "astronaut.jpg"), read_image(DATA / "grace_hopper.jpg")] * 6
    alone = [recognizer.predict(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(recognizer.predict, images))
    for one, other in zip(alone, together, strict=True):
        assert [face.box for face in one] == [face.box for face in other]
        assert all(np.array_equal(a.probabilities, b.probabilities) for a, b in zip(one, other, strict=True))


def test_many_threads_read_the_same_crops_alike(recognizer):
    crops = np.random.default_rng(2).integers(0, 256, (64, 48, 48)).astype(np.uint8)
    alone = [recognizer.predict_crops(crops[start::8]) for start in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda start: recognizer.predict_crops(crops[start % 8 :: 8]), range(80)))
    assert all(np.array_equal(alone[index % 8], rows) for index, rows in enumerate(together))


def test_a_missing_model_is_named_with_what_to_do(tmp_path):
    with pytest.raises(ModelError, match=r"Not found: .*nowhere\.tflite.*train and export"):
        EmotionRecognizer(tmp_path / "nowhere.tflite")


def test_a_missing_record_is_named(tmp_path):
    path = write_model(tmp_path)
    path.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match=r"Not found: .*emotion_model\.json"):
        EmotionRecognizer(path)


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x1c\0\0\0TFL3" + bytes(200)])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    path = write_model(tmp_path)
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"must be a \.tflite file"):
        EmotionRecognizer(path)


@pytest.mark.parametrize("wrong", [{"classes": 6}, {"side": 44}])
def test_a_model_of_another_shape_is_refused(tmp_path, wrong):
    with pytest.raises(ModelError, match=r"must take float32 \(n, 48, 48, 1\) and return float32 \(n, 7\)"):
        EmotionRecognizer(write_model(tmp_path, **wrong))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"labels": sorted(EMOTIONS)}, "labels must be"),
        ({}, "labels must be"),
        ([], "labels must be"),
        ({"labels": list(EMOTIONS), "temperature": 0}, "temperature must be a positive number"),
        ({"labels": list(EMOTIONS), "temperature": "hot"}, "temperature must be a positive number"),
    ],
)
def test_a_record_that_breaks_the_contract_is_refused(tmp_path, record, message):
    with pytest.raises(ModelError, match=message):
        EmotionRecognizer(write_model(tmp_path, record))


def test_a_record_that_is_no_json_is_refused(tmp_path):
    path = write_model(tmp_path)
    path.with_suffix(".json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="must be JSON"):
        EmotionRecognizer(path)


def test_a_photo_is_answered_where_tensorflow_and_mediapipe_cannot_be_imported(model_path):
    program = f"""
import sys
for name in ("tensorflow", "keras", "jax", "mediapipe", "gradio", "matplotlib", "utils"):
    sys.modules[name] = None
from emotion.recognizer import EmotionRecognizer
print(len(EmotionRecognizer({str(model_path)!r}).predict({str(DATA / "astronaut.jpg")!r})))
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "1"


@pytest.mark.skipif(not DEFAULT_MODEL.is_file(), reason="no trained model in saved_models/ yet")
def test_the_trained_model_sees_the_astronaut_smile():
    (face,) = EmotionRecognizer().predict(DATA / "astronaut.jpg")
    assert face.emotion == "happy"


@pytest.mark.data
@pytest.mark.skipif(not DEFAULT_MODEL.is_file(), reason="no trained model in saved_models/ yet")
def test_finding_and_aligning_a_fer2013_image_costs_less_than_three_points(fer2013):
    from benchmarks.measure_path import measure, unseen

    recognizer = EmotionRecognizer()
    report = measure(unseen(fer2013, recognizer)[1], recognizer)  # all of it: 600 pictures leave two points to chance
    assert report.answered >= 0.97
    assert report.path_answered >= report.direct_answered - 0.03
