"""Contracts of emotion.export: every format answers like the source model, or nothing is written."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from emotion import export
from emotion.evaluation import apply_temperature, evaluate, fit_temperature
from emotion.labels import EMOTIONS

ROOT = Path(__file__).resolve().parent.parent
FILES = {"emotion_model.keras", "emotion_model.h5", "emotion_model.tflite", "emotion_model_int8.tflite", "emotion_model.json"}
RECORD = {"name": "tiny", "input": "as given", "config": {"learning_rate": 2.5e-8}, "metrics": {"n": np.int64(3589)}}

STEP_UNDER_JAX = """
import sys
import keras
from emotion.export import synthetic_faces

faces, emotions = synthetic_faces(32)
model = keras.models.load_model(sys.argv[1])
model.fit(faces[..., None].astype("float32"), emotions, verbose=0)
model.save(sys.argv[2])
"""


@pytest.fixture(scope="module")
def trained():
    """A small network with augmentation layers inside, trained for seconds on drawn faces and still holding its optimizer."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((48, 48, 1), name="grey"),
            layers.Rescaling(1 / 255),
            layers.RandomFlip("horizontal"),
            layers.Conv2D(16, 3, strides=2, use_bias=False),
            layers.BatchNormalization(momentum=0.8),
            layers.ReLU(),
            layers.Conv2D(32, 3, strides=2, activation="relu", name="features"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(32, activation="relu"),
            layers.Dense(7, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    faces, emotions = export.synthetic_faces(2048, seed=1)
    model.fit(faces[..., None].astype(np.float32), emotions, batch_size=64, epochs=6, verbose=0)
    return model


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """A finished export: its folder and the record that export_model returned."""
    folder = tmp_path_factory.mktemp("parent") / "saved_models"
    record = export.export_model(trained, RECORD, folder, export.synthetic_faces(600, seed=2)[0])
    return SimpleNamespace(folder=folder, record=record)


@pytest.fixture(scope="module")
def with_map(trained):
    """The same network with an activation map as first output and the probabilities as second."""
    import keras

    return keras.Model(trained.inputs, [trained.get_layer("features").output, trained.outputs[0]])


@pytest.fixture(scope="module")
def two_outputs(with_map, tmp_path_factory):
    """Two folders of files: the network with its map, and one that differs from it in the map alone."""
    import keras

    grey_map = keras.layers.Rescaling(2.0, name="doubled")(with_map.outputs[0])
    doubled = keras.Model(with_map.inputs, [grey_map, with_map.outputs[1]])
    return [written(model, tmp_path_factory.mktemp("files")) for model in (with_map, doubled)]


def written(model, folder):
    """Writes the four model files without checking them; returns the folder."""
    export._write(model, model, {kind: folder / f"emotion_model{suffix}" for kind, suffix in export.SUFFIXES.items()})
    return folder


def ask_keras(model, faces):
    return model.predict(faces[..., None].astype(np.float32), verbose=0)


def ask_litert(path, faces):
    """Runs a .tflite file as a server does; returns all its outputs."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    grey = interpreter.get_input_details()[0]
    assert grey["dtype"] == np.float32
    interpreter.resize_tensor_input(grey["index"], (len(faces), 48, 48, 1))
    interpreter.allocate_tensors()
    interpreter.set_tensor(grey["index"], faces[..., None].astype(np.float32))
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def contents(folder):
    """Returns {file name: bytes} of everything in a folder, hidden files too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def swapped(monkeypatch, good, kind, other):
    """Makes the export write the files of folder `good`, except that format `kind` comes from folder `other`."""

    def write(model, served, paths):
        for each, path in paths.items():
            shutil.copy((other if each == kind else good) / path.name, path)

    monkeypatch.setattr(export, "_write", write)


# --- a good export


def test_importing_export_imports_neither_tensorflow_nor_keras():
    code = "import sys, emotion.export; print([name for name in ('tensorflow', 'keras', 'jax') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_test_network_learned_something(trained):
    faces, emotions = export.synthetic_faces(500, seed=3)
    assert (ask_keras(trained, faces).argmax(axis=1) == emotions).mean() > 0.8


def test_export_writes_the_five_files_and_nothing_else(exported):
    assert set(contents(exported.folder)) == FILES


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras_files_answer_like_the_source_on_unseen_faces(trained, exported, suffix):
    import keras

    faces, _ = export.synthetic_faces(300, seed=4)
    model = keras.models.load_model(exported.folder / f"emotion_model{suffix}")
    np.testing.assert_allclose(ask_keras(model, faces), ask_keras(trained, faces), atol=1e-4)
    assert getattr(model, "optimizer", None) is None  # training state is not shipped


@pytest.mark.parametrize("count", [1, 5, 300])
def test_tflite_answers_like_the_source_for_any_batch_size(trained, exported, count):
    faces, _ = export.synthetic_faces(count, seed=5)
    (probabilities,) = ask_litert(exported.folder / "emotion_model.tflite", faces)
    assert probabilities.shape == (count, 7)
    np.testing.assert_allclose(probabilities, ask_keras(trained, faces), atol=1e-4)


def test_int8_keeps_the_top_emotion_and_is_much_smaller(trained, exported):
    faces, _ = export.synthetic_faces(1000, seed=6)
    path = exported.folder / "emotion_model_int8.tflite"
    (probabilities,) = ask_litert(path, faces)
    assert (probabilities.argmax(axis=1) == ask_keras(trained, faces).argmax(axis=1)).mean() >= 0.98
    for count in (1, 5):
        np.testing.assert_allclose(ask_litert(path, faces[:count])[0], probabilities[:count], atol=1e-4)
    assert path.stat().st_size < 0.5 * (exported.folder / "emotion_model.tflite").stat().st_size


def test_record_describes_every_file(exported):
    formats = exported.record["formats"]
    assert {entry["file"] for entry in formats.values()} | {"emotion_model.json"} == FILES
    for kind, entry in formats.items():
        content = (exported.folder / entry["file"]).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert kind == "int8" or entry["max_difference"] <= 1e-4
    assert 0.99 <= formats["int8"]["agreement"] <= 1
    assert "int8 weights" in formats["int8"]["scheme"]


def test_record_keeps_what_was_given_and_adds_labels_and_versions(exported):
    record = json.loads((exported.folder / "emotion_model.json").read_text(encoding="utf-8"))
    assert record == exported.record
    assert record["labels"] == list(EMOTIONS)
    assert record["config"] == {"learning_rate": 2.5e-8}
    assert record["metrics"] == {"n": 3589}
    assert (record["name"], record["input"]) == ("tiny", "as given")
    assert record["export"]["faces"] == 600
    assert set(record["export"]["versions"]) == {"python", "keras", "tensorflow", "litert", "numpy"}


def test_export_replaces_a_former_export_and_keeps_other_files(exported, trained, tmp_path):
    (tmp_path / "emotion_model.tflite").write_text("former")
    (tmp_path / "notes.txt").write_text("mine")
    record = export.export_model(trained, {}, tmp_path)  # without faces: synthetic ones
    assert set(contents(tmp_path)) == FILES | {"notes.txt"}
    assert record["formats"]["tflite"]["bytes"] == (tmp_path / "emotion_model.tflite").stat().st_size
    assert "grey levels 0..255" in record["input"]


# --- an activation map as second output


def test_a_model_with_an_activation_map_is_exported_with_both_outputs(trained, with_map, tmp_path):
    record = export.export_model(with_map, {}, tmp_path)
    faces, _ = export.synthetic_faces(5, seed=7)
    expected_map, expected = ask_keras(with_map, faces)
    outputs = {output.ndim: output for output in ask_litert(tmp_path / "emotion_model.tflite", faces)}
    np.testing.assert_allclose(outputs[2], expected, atol=1e-4)
    np.testing.assert_allclose(outputs[4], expected_map, atol=1e-3)
    assert "activation map (n, 11, 11, 32)" in record["output"]


def test_the_served_files_of_a_pooled_network_also_give_its_map_and_the_keras_files_probabilities_alone(tmp_path):
    import keras

    from emotion.architectures import build

    network = build("vgg", {"widths": (4, 8), "convolutions": (1, 1)})
    record = export.export_model(network, {}, tmp_path)
    faces, _ = export.synthetic_faces(3, seed=8)
    for suffix in (".keras", ".h5"):
        assert keras.models.load_model(tmp_path / f"emotion_model{suffix}", compile=False).output_shape == (None, 7)
    for suffix in (".tflite", "_int8.tflite"):
        shapes = {output.shape for output in ask_litert(tmp_path / f"emotion_model{suffix}", faces)}
        assert shapes == {(3, 7), (3, 24, 24, 7)}
    assert "activation map (n, 24, 24, 7)" in record["output"]


def test_a_network_that_looks_more_than_once_keeps_its_map_in_the_served_files(tmp_path):
    import keras

    from emotion.activation import with_activation_map
    from emotion.architectures import build
    from emotion.looks import with_looks

    network = build("vgg", {"widths": (4, 8), "convolutions": (1, 1)})
    faces, _ = export.synthetic_faces(3, seed=8)
    export.export_model(network, {}, tmp_path, looks=4)
    probabilities, evidence = ask_keras(with_looks(with_activation_map(network), 4), faces)
    for suffix in (".keras", ".h5"):
        loaded = keras.models.load_model(tmp_path / f"emotion_model{suffix}", compile=False)
        np.testing.assert_allclose(ask_keras(loaded, faces), probabilities, atol=1e-5)
    outputs = {output.ndim: output for output in ask_litert(tmp_path / "emotion_model.tflite", faces)}
    np.testing.assert_allclose(outputs[2], probabilities, atol=1e-4)
    np.testing.assert_allclose(outputs[4], evidence, atol=1e-3)


@pytest.mark.parametrize("kind", ["tflite", "int8"])
def test_an_activation_map_that_differs_is_refused(with_map, two_outputs, kind, monkeypatch, tmp_path):
    good, doubled = two_outputs
    swapped(monkeypatch, good, kind, doubled)
    with pytest.raises(export.ExportError, match=rf"emotion_model{export.SUFFIXES[kind]}: activation map must differ by at most"):
        export.export_model(with_map, {}, tmp_path / "out")


# --- refusals


@pytest.fixture(scope="module")
def another(trained, tmp_path_factory):
    """Files of a network with other answers, in all formats."""
    import keras

    keras.utils.set_random_seed(9)
    return written(keras.models.clone_model(trained), tmp_path_factory.mktemp("another"))


@pytest.mark.parametrize("kind", list(export.SUFFIXES))
def test_a_format_that_answers_differently_is_refused_and_former_files_stay(
    trained, exported, another, kind, monkeypatch, tmp_path
):
    for name in FILES:
        (tmp_path / name).write_text(f"former {name}")
    before = contents(tmp_path)
    swapped(monkeypatch, exported.folder, kind, another)
    with pytest.raises(export.ExportError, match=rf"emotion_model{export.SUFFIXES[kind]}.* must .* Received: .*\d"):
        export.export_model(trained, {}, tmp_path)
    assert contents(tmp_path) == before


def test_a_refused_export_makes_no_folder(trained, exported, another, monkeypatch, tmp_path):
    swapped(monkeypatch, exported.folder, "h5", another)
    with pytest.raises(export.ExportError):
        export.export_model(trained, {}, tmp_path / "new" / "saved_models")
    assert list(tmp_path.iterdir()) == []


def test_int8_below_99_percent_agreement_is_refused_with_the_share(trained, exported, another, monkeypatch, tmp_path):
    swapped(monkeypatch, exported.folder, "int8", another)
    with pytest.raises(export.ExportError, match=r"at least 99% of the faces. Received: \d+\.\d\d% \(worst difference"):
        export.export_model(trained, {}, tmp_path)


def test_a_model_that_returns_no_probabilities_is_refused(tmp_path):
    import keras

    grey = keras.Input((48, 48, 1))
    logits = keras.layers.Dense(7)(keras.layers.Flatten()(grey))
    with pytest.raises(export.ExportError, match=r"must be probabilities that sum to 1 within 0.001. Received: off by"):
        export.export_model(keras.Model(grey, logits), {}, tmp_path)
    with pytest.raises(export.ExportError, match=r"must return probabilities \(n, 7\).* Received: \(512, 48, 48, 1\)"):
        export.export_model(keras.Model(grey, keras.layers.ReLU()(grey)), {}, tmp_path)
    colour = keras.Input((48, 48, 3))
    with pytest.raises(export.ExportError, match=r"must have shape \(None, 48, 48, 1\). Received: \(None, 48, 48, 3\)"):
        export.export_model(keras.Model(colour, keras.layers.ReLU()(colour)), {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("faces", "received"),
    [
        (np.zeros((255, 48, 48), np.uint8), r"uint8 of shape \(255, 48, 48\)"),
        (np.zeros((300, 48, 48), np.float32), r"float32 of shape \(300, 48, 48\)"),
        (np.zeros((300, 48, 48, 1), np.uint8), r"uint8 of shape \(300, 48, 48, 1\)"),
    ],
)
def test_unfit_faces_are_refused(faces, received, tmp_path):
    with pytest.raises(ValueError, match=rf"faces must be uint8 of shape \(n, 48, 48\), n >= 256. Received: {received}"):
        export.export_model(None, {}, tmp_path, faces)


def test_a_record_with_other_labels_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"labels in the record must be angry, .*Received: \['happy', 'sad'\]"):
        export.export_model(None, {"labels": ["happy", "sad"]}, tmp_path)


# --- synthetic faces and the command line


def test_synthetic_faces_follow_from_their_seed():
    faces, emotions = export.synthetic_faces(40, seed=1)
    again, _ = export.synthetic_faces(40, seed=1)
    other, _ = export.synthetic_faces(40, seed=2)
    assert (faces.dtype, faces.shape, emotions.shape) == (np.uint8, (40, 48, 48), (40,))
    assert np.array_equal(faces, again)
    assert not np.array_equal(faces, other)


def test_command_line_exports_a_run_trained_under_jax_with_its_temperature(trained, monkeypatch, tmp_path, capsys):
    from emotion import dataset

    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    trained.save(run / "before.keras")
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    files = [str(run / "before.keras"), str(run / "best.keras")]
    subprocess.run([sys.executable, "-c", STEP_UNDER_JAX, *files], check=True, env=environment, cwd=ROOT)
    faces, emotions = export.synthetic_faces(400, seed=8)
    emotions[::4] = 0  # so that the network is wrong at times, as on real faces, and full confidence is not the best answer
    part = SimpleNamespace(images=faces, labels=emotions)
    data = SimpleNamespace(public_test=part, private_test=part)
    monkeypatch.setattr(dataset, "load_fer2013", lambda: data)
    (run / "record.json").write_text(json.dumps({"name": "tiny"}))
    for part_name in ("public_test", "private_test"):
        np.save(run / f"{part_name}.npy", ask_keras(trained, faces))
    export.main(["--run", str(run), "--out", str(out)])
    record = json.loads((out / "emotion_model.json").read_text(encoding="utf-8"))
    assert record["name"] == "tiny"
    assert record["temperature"] == pytest.approx(fit_temperature(emotions, ask_keras(trained, faces)), rel=1e-4)
    served = apply_temperature(ask_keras(trained, faces), record["temperature"])
    assert record["metrics"]["private_test"]["ece"] == pytest.approx(evaluate(emotions, served)["ece"], abs=1e-4)
    assert record["selective"]["public_test"]["answered"]["value"] == pytest.approx(
        (served.max(axis=1) >= record["not_sure_below"]).mean(), abs=1e-3
    )
    (int8,) = ask_litert(out / "emotion_model_int8.tflite", faces)
    right = (int8.argmax(axis=1) == emotions).mean()
    assert record["formats"]["int8"]["accuracy"]["private_test"]["value"] == pytest.approx(right, abs=1e-3)
    assert "emotion_model_int8.tflite" in capsys.readouterr().out


@pytest.fixture
def refit(trained, monkeypatch, tmp_path):
    """The folder of a run that was fitted on PublicTest, and has a twin beside it that was not; returns it and the data."""
    from emotion import dataset, experiments

    monkeypatch.setattr(experiments, "TWINS", {"fitted_again": "judged"})
    public, private = (SimpleNamespace(images=f, labels=e) for f, e in (export.synthetic_faces(300, seed=s) for s in (8, 9)))
    public.labels[::4] = 0
    data = SimpleNamespace(public_test=public, private_test=private)
    monkeypatch.setattr(dataset, "load_fer2013", lambda: data)
    for name, tests in (("judged", ("public_test", "private_test")), ("fitted_again", ("private_test",))):
        (tmp_path / name).mkdir()
        trained.save(tmp_path / name / "best.keras")
        (tmp_path / name / "record.json").write_text(json.dumps({"name": name}))
        for test in tests:
            np.save(tmp_path / name / f"{test}.npy", ask_keras(trained, getattr(data, test).images))
    return tmp_path / "fitted_again", data


def test_a_refit_is_calibrated_by_its_twin_and_claims_nothing_of_publictest(refit, trained, tmp_path):
    run, data = refit
    export.main(["--run", str(run), "--out", str(tmp_path / "out")])
    record = json.loads((tmp_path / "out" / "emotion_model.json").read_text(encoding="utf-8"))
    answers = np.load(tmp_path / "judged" / "public_test.npy")
    assert record["temperature"] == pytest.approx(fit_temperature(data.public_test.labels, answers), rel=1e-4)
    twin = record["twin"]
    assert list(record["metrics"]) == list(record["selective"]) == ["private_test"]
    assert twin["name"] == "judged" and list(twin["metrics"]) == list(twin["selective"]) == ["public_test", "private_test"]
    right = (answers.argmax(axis=1) == data.public_test.labels).mean()
    assert twin["metrics"]["public_test"]["accuracy"]["value"] == pytest.approx(right, abs=1e-5)
    assert list(record["formats"]["int8"]["accuracy"]) == ["private_test"]


def test_a_refit_without_its_twin_is_refused(refit, tmp_path, capsys):
    run, _ = refit
    (tmp_path / "judged" / "public_test.npy").unlink()
    with pytest.raises(SystemExit):
        export.main(["--run", str(run), "--out", str(tmp_path / "out")])
    assert f"Missing in {tmp_path / 'judged'}: public_test.npy" in capsys.readouterr().err


def test_command_line_names_what_a_run_lacks(tmp_path, capsys):
    with pytest.raises(SystemExit):
        export.main(["--run", str(tmp_path)])
    assert "best.keras, record.json, public_test.npy, private_test.npy" in capsys.readouterr().err
