import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from emotion.augmentation import STANDARD
from emotion.batches import batches, mix
from emotion.cleaning import clean, one_hot, refittable
from emotion.fitting import fit
from emotion.training import TrainingConfig, predict, train

ROOT = Path(__file__).resolve().parent.parent
TINY = {"architecture_options": {"filters": (4, 8), "dense": 16}}

RUN = """
import os, signal, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError("this machine has no tensorflow", name=name)
if {backend!r} == "jax":
    sys.meta_path.insert(0, NoTensorFlow())
import numpy as np
from conftest import drawn
from emotion import training
from emotion.augmentation import Augmentation
from emotion.distillation import Distillation
kill_at, folder = int(sys.argv[1]), sys.argv[2]
save = training.Recorder.save
def save_or_die(self, epochs_done):
    if epochs_done == kill_at and self.config.name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, epochs_done)
training.Recorder.save = save_or_die
augmentation = Augmentation(flip=True, rotation=15, zoom=0.1, shift=0.1, brightness=0.1, contrast=0.1, erase=0.3)
data, tiny = drawn.__wrapped__(), {{"architecture_options": {{"filters": (4,), "dense": 8}}, "epochs": 1}}
training.train(training.TrainingConfig("teacher", **tiny), data, os.path.join(os.path.dirname(folder), "teacher"), verbose=0)
config = training.TrainingConfig(
    "killed", architecture_options={{"filters": (4, 8), "dense": 16}}, epochs={epochs}, batch_size=32, optimizer="sgd",
    learning_rate=0.05, schedule="cosine", warmup_epochs=1, weight_decay=1e-3, label_smoothing=0.1, ema=0.9,
    augmentation=augmentation, mixup=0.2, balance="sampling", label_share=0.5,
    distillation=Distillation(["teacher"]),
)
training.train(config, data, folder, verbose=0)
"""


def run(folder, kill_at=0, epochs=5, backend="tensorflow"):
    code = RUN.format(root=str(ROOT), backend=backend, epochs=epochs)
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", code, str(kill_at), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def history(folder):
    with (folder / "history.csv").open() as file:
        return [[float(value) for name, value in row.items() if name != "seconds"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(backend, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished = run(whole, backend=backend)
    assert finished.returncode == 0, finished.stderr
    # Killed in the worst moment: history.csv already holds the third epoch, the checkpoint does not.
    assert run(killed, kill_at=3, backend=backend).returncode == -signal.SIGKILL
    assert len(history(killed)) == 3 and not (killed / "record.json").exists()
    resumed = run(killed, backend=backend)
    assert resumed.returncode == 0, resumed.stderr
    assert np.allclose(history(whole), history(killed), atol=1e-3)
    assert np.allclose(np.load(whole / "private_test.npy"), np.load(killed / "private_test.npy"), atol=1e-3)


def test_training_under_jax_needs_no_tensorflow_and_its_network_loads_under_tensorflow(tmp_path):
    finished = run(tmp_path / "run", epochs=2, backend="jax")
    assert finished.returncode == 0, finished.stderr
    model = keras.saving.load_model(tmp_path / "run" / "best.keras")
    from conftest import draw_faces

    images, _ = draw_faces(6, 2)
    assert np.allclose(predict(model, images), np.load(tmp_path / "run" / "private_test.npy"), atol=1e-4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("runs") / "fitted"
    config = TrainingConfig("fitted", epochs=12, batch_size=32, learning_rate=5e-3, patience=4, augmentation=STANDARD, **TINY)
    return config, train(config, drawn, folder, verbose=0), folder


def test_a_run_learns_and_keeps_its_best_epoch(finished, drawn):
    _, record, folder = finished
    accuracies = [row[4] for row in history(folder)]
    assert max(accuracies) > 0.5
    assert record["best_epoch"] == int(np.argmax(accuracies)) + 1
    assert record["metrics"]["public_test"]["accuracy"]["value"] == pytest.approx(max(accuracies), abs=1e-6)
    model = keras.saving.load_model(folder / "best.keras")
    assert np.allclose(predict(model, drawn.public_test.images), np.load(folder / "public_test.npy"), atol=1e-5)


def test_the_record_suffices_to_run_again(finished):
    _, _, folder = finished
    read = json.loads((folder / "record.json").read_text())
    assert TrainingConfig.from_dict(read["config"]).to_dict() == read["config"]
    assert {"labels", "metrics", "data", "versions", "minutes", "parameters", "git_commit"} <= set(read)
    assert not (folder / "checkpoint.npz").exists()


def test_a_finished_run_is_not_trained_again(finished, drawn, monkeypatch):
    config, record, folder = finished
    monkeypatch.setattr("emotion.training.fit", lambda *a: pytest.fail("trained again"))
    assert train(config, drawn, folder)["metrics"] == json.loads(json.dumps(record["metrics"]))


def test_a_folder_of_other_settings_is_refused(finished, drawn):
    _, _, folder = finished
    with pytest.raises(ValueError, match="other settings"):
        train(TrainingConfig("fitted", epochs=3), drawn, folder)


def test_a_run_begun_before_a_setting_existed_keeps_its_folder(drawn, tmp_path):
    config = TrainingConfig("older", epochs=1, batch_size=32, **TINY)
    record = train(config, drawn, tmp_path / "older", verbose=0)
    settings = json.loads((tmp_path / "older" / "config.json").read_text())
    del settings["stages"]
    (tmp_path / "older" / "config.json").write_text(json.dumps(settings))
    assert train(config, drawn, tmp_path / "older")["metrics"] == json.loads(json.dumps(record["metrics"]))


def test_early_stopping_ends_a_run_that_no_longer_gains(drawn, tmp_path):
    config = TrainingConfig("still", epochs=20, batch_size=32, learning_rate=1e-9, patience=2, **TINY)
    train(config, drawn, tmp_path / "still", verbose=0)
    assert len(history(tmp_path / "still")) == 3


def test_the_last_epoch_is_kept_where_the_settings_say_so(drawn, tmp_path):
    rates = {"learning_rate": 0.03, "epochs": 4, "batch_size": 16, "seed": 1}
    record = train(TrainingConfig("last", keep="last", **rates, **TINY), drawn, tmp_path / "last", verbose=0)
    assert record["best_epoch"] == 4 and record["protocol"] == "fitted on Training; last epoch kept; PrivateTest scored once"
    assert record["metrics"]["public_test"]["accuracy"]["value"] == pytest.approx(history(tmp_path / "last")[-1][4], abs=1e-6)


def test_a_refit_fits_publictest_by_its_labels_and_has_no_score_there(drawn, monkeypatch, tmp_path):
    seen = []

    def look(config, images, targets, *rest, **more):
        seen.append((images, targets, more["framed"]))
        return fit(config, images, targets, *rest, **more)

    monkeypatch.setattr("emotion.training.fit", look)
    monkeypatch.setattr("emotion.training.framed", lambda images: 255 - images)
    settings = {"refit": True, "keep": "last", "framed": 0.5, "vote_head": 0.5, "epochs": 1}
    config = TrainingConfig("refit", batch_size=32, architecture="mobilenet", **settings)
    record = train(config, drawn, tmp_path / "refit", verbose=0)
    (images, targets, framed), training = seen[0], clean(drawn)[0].training
    more = refittable(drawn)
    assert len(more) and np.array_equal(images, np.concatenate([training.images, more.images]))
    assert np.array_equal(targets[len(training) :, :7], one_hot(more.labels)) and not targets[len(training) :, 7:].any()
    assert targets[: len(training), 7:].any() and np.array_equal(framed, 255 - images)
    assert list(record["metrics"]) == ["private_test"] and "PublicTest" in record["protocol"]
    assert record["data"]["public_test_rows"] == len(more)
    assert not (tmp_path / "refit" / "public_test.npy").exists()


def test_mixed_precision_leaves_a_float32_network(drawn, tmp_path):
    config = TrainingConfig("half", epochs=1, batch_size=32, precision="mixed_bfloat16", **TINY)
    train(config, drawn, tmp_path / "half", verbose=0)
    model = keras.saving.load_model(tmp_path / "half" / "best.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_every_epoch_shows_every_picture_once_in_another_order(drawn):
    config = TrainingConfig("order", batch_size=20)
    images = np.arange(140, dtype=np.uint8)[:, None, None] * np.ones((1, 48, 48), np.uint8)
    stream = batches(images, np.eye(7, dtype=np.float32)[drawn.training.labels], config)
    first, second = ([int(x[0, 0, 0]) for _ in range(7) for x in next(stream)[0]] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(140)) and first != second
    later = batches(images, np.eye(7, dtype=np.float32)[drawn.training.labels], config, first_epoch=1)
    assert [int(x[0, 0, 0]) for _ in range(7) for x in next(later)[0]] == second


def test_every_step_has_the_full_batch_size(drawn):
    stream = batches(drawn.training.images, np.ones((140, 7), np.float32) / 7, TrainingConfig("x", batch_size=64))
    assert [next(stream)[0].shape for _ in range(4)] == [(64, 48, 48, 1)] * 4


def test_pictures_are_shown_framed_in_the_share_that_was_asked_for(drawn, monkeypatch, tmp_path):
    images, targets = drawn.training.images, np.eye(7, dtype=np.float32)[drawn.training.labels]
    plain, framed = np.zeros_like(images), np.full_like(images, 200)

    def shown(share, framed):
        stream = batches(plain, targets, TrainingConfig("x", batch_size=140, framed=share), framed=framed)
        return np.concatenate([next(stream)[0][:, 0, 0, 0] for _ in range(10)])

    assert shown(0.0, framed).max() == shown(0.3, None).max() == 0 and shown(1.0, framed).min() == 200
    assert set(shown(0.3, framed)) == {0, 200} and 0.2 < (shown(0.3, framed) > 0).mean() < 0.4
    assert np.array_equal(shown(0.3, framed), shown(0.3, framed))

    asked = []
    monkeypatch.setattr("emotion.training.framed", lambda pictures: asked.append(pictures) or pictures)
    train(TrainingConfig("framed", **TINY, epochs=1, framed=0.5), drawn, tmp_path / "framed", verbose=0)
    train(TrainingConfig("plain", **TINY, epochs=1), drawn, tmp_path / "plain", verbose=0)
    record = json.loads((tmp_path / "framed" / "record.json").read_text(encoding="utf-8"))
    assert len(asked) == 1 and len(asked[0]) == record["data"]["training_rows"]
    with pytest.raises(ValueError, match="framed pictures must be given for a config that shows them. Received: none, share 0.5"):
        fit(TrainingConfig("x", **TINY, framed=0.5), images, targets, drawn.public_test, tmp_path / "none")


def test_class_weights_travel_with_the_batches(drawn):
    config = TrainingConfig("weights", batch_size=20, balance="class_weight")
    targets = np.eye(7, dtype=np.float32)[np.array([0] * 120 + [1] * 20)]
    _, y, weights = next(batches(drawn.training.images, targets, config))
    rare = y.argmax(axis=1) == 1
    assert rare.any() and np.allclose(weights[rare], 1.0) and np.allclose(weights[~rare], 1 / 6)


def test_mixing_blends_pictures_and_targets_alike():
    x = np.array([0, 100], np.float32).reshape(2, 1, 1, 1)
    mixed_x, mixed_y = mix(x, np.eye(2, dtype=np.float32), 0.75, np.array([1, 0]))
    assert mixed_x.ravel().tolist() == [25, 75] and mixed_y.tolist() == [[0.75, 0.25], [0.25, 0.75]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "lion"}, "optimizer must be one of adam, sgd. Received: 'lion'"),
        ({"epochs": 0}, "epochs must be positive. Received: 0"),
        ({"ema": 2}, "ema must lie in"),
        ({"epochs": 2, "warmup_epochs": 2}, "warmup_epochs must be below epochs. Received: 2 of 2"),
        ({"refit": True}, "keep must be last"),
        ({"refit": True, "keep": "last", "patience": 3}, "patience 0"),
        ({"keep": "first"}, "keep must be one of best, last. Received: 'first'"),
        ({"speed": 1}, "Unknown: speed"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig.from_dict({"name": "x", **settings})
