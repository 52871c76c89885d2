"""Contracts of transfer learning: ready-made bodies behind grey faces, their weights on disk, what is frozen, stages of a run."""

import csv
import json
import os
import socket
import subprocess
import sys
import urllib.error
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from emotion import transfer
from emotion.architectures import INPUT_SHAPE, build
from emotion.augmentation import Augmentation
from emotion.fused_norm import FusedBatchNormalization, with_fused_normalization
from emotion.recorder import Recorder
from emotion.training import TrainingConfig, train
from emotion.training_config import Stage
from emotion.transfer import body_checksum, body_layers, freeze_body, load_body, save_body, split, vgg16

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("vgg16", "resnet50", "mobilenet_v2")
TINY = {"widths": (4, 8), "blocks": (1, 1)}
TINY_VGG = {"widths": (4, 8), "convolutions": (1, 1)}


@pytest.fixture(scope="module")
def networks():
    """Each network once, with initial weights: building them takes seconds."""
    return {name: build(name, {"weights": None}) for name in NAMES}


@pytest.fixture
def levels():
    return np.random.default_rng(0).uniform(0, 255, (3, *INPUT_SHAPE)).astype("float32")


def values(variables):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def body_values(model):
    return values([variable for layer in body_layers(model) for variable in layer.weights])


def same(first, second):
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def random_norms(model, seed=1):
    """Gives every batch normalisation statistics of its own, so that losing or changing them shows."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def one_step(model, levels):
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    model.train_on_batch(levels, np.eye(model.output_shape[-1], dtype="float32")[: len(levels)])


def small_network():
    """What stands around a ready-made body, with one convolution in its place: as the real ones, but made in no time."""

    def one_convolution(include_top, weights, input_tensor):
        x = keras.layers.Conv2D(8, 5, strides=4, activation="relu")(input_tensor)
        return keras.Model(keras.utils.get_source_inputs(input_tensor), x)

    return transfer._network(one_convolution, "small", transfer._centred, None, 96, 16, 0.5, 7)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_maps_grey_levels_to_probabilities(networks, name, levels):
    model = networks[name]
    assert model.input_shape == (None, *INPUT_SHAPE) and not model.compiled and model.name == name
    probabilities = keras.ops.convert_to_numpy(model(levels))
    assert probabilities.shape == (3, 7) and probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_body_gets_what_its_own_preprocessing_gives(networks, name, levels):
    model = networks[name]
    steps = keras.Model(model.input, [model.get_layer("rgb").output, model.get_layer("preprocess").output])
    rgb, prepared = (keras.ops.convert_to_numpy(output) for output in steps(levels))
    side = 48 if name == "vgg16" else 96
    assert rgb.shape == (3, side, side, 3) and np.array_equal(rgb[..., 0], rgb[..., 2])
    assert rgb.min() >= 0 and 200 < rgb.max() <= 255
    expected = getattr(keras.applications, name).preprocess_input(rgb.copy())
    assert np.allclose(prepared, expected, atol=1e-3)


def test_asking_a_network_changes_nothing_and_only_training_does(levels, tmp_path):
    small_network().save(tmp_path / "small.keras")
    for model in (small_network(), keras.models.load_model(tmp_path / "small.keras")):
        before = values(model.weights)
        assert np.allclose(model(levels), model.predict(levels, verbose=0), atol=1e-5) and same(before, values(model.weights))
        model(levels, training=True)
        assert not same(before, values(model.weights))


@pytest.mark.parametrize("name", NAMES)
def test_statistics_catch_up_within_a_few_hundred_steps(networks, name):
    norms = [layer for layer in networks[name].layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and all(norm.momentum**500 < 0.01 for norm in norms), "less than a hundredth of the first values is left"


def test_other_input_sizes_are_refused():
    with pytest.raises(ValueError, match="input_size must be one of 48, 96, 112, 144, 224. Received: 64"):
        build("vgg16", {"weights": None, "input_size": 64})


@pytest.fixture
def empty_keras_home(tmp_path, monkeypatch):
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path / "keras"))
    (tmp_path / "keras").mkdir()


def test_without_a_network_the_default_weights_are_refused_at_once_with_the_two_other_choices(empty_keras_home, monkeypatch):
    limits = []

    def no_network(*_):
        limits.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", no_network)
    rule = r'weights="imagenet" must be downloaded.*body\.npz.*emotion\.pretraining.*weights=None.*name resolution'
    with pytest.raises(ValueError, match=rule):
        vgg16()
    assert limits and 0 < limits[0] <= 60  # a network that never answers is given up, too


def test_imagenet_weights_reach_the_body(networks, tmp_path, monkeypatch):
    source = networks["vgg16"]
    body = keras.Model(source.input, body_layers(source)[-1].output)
    with h5py.File(tmp_path / "vgg16.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, body)
    monkeypatch.setattr("keras.src.applications.vgg16.file_utils.get_file", lambda *_, **__: str(tmp_path / "vgg16.h5"))
    assert same(body_values(vgg16("imagenet")), body_values(source))


def test_body_weights_come_back_and_the_head_stays(tmp_path, levels):
    source = random_norms(build("se_resnet", TINY | {"classes": 5}))
    path = save_body(source, tmp_path / "body.npz")
    with np.load(path) as arrays:
        kinds = {(arrays[name].ndim > 1, arrays[name].dtype.name) for name in arrays.files if name.startswith("weight_")}
    assert kinds == {(True, "float16"), (False, "float32")}
    loaded = build("se_resnet", TINY | {"weights": str(path)})
    for before, after in zip(body_values(source), body_values(loaded), strict=True):
        assert np.allclose(before, after, rtol=1e-3, atol=1e-4)
    head = values(loaded.layers[-1].weights)
    load_body(loaded, path)
    assert same(head, values(loaded.layers[-1].weights)) and loaded.output_shape == (None, 7)


def test_body_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be the path of body weights.*nowhere.npz"):
        build("vgg", {"weights": "nowhere.npz"})
    path = save_body(build("se_resnet", TINY), tmp_path / "body.npz")
    others = {"se_resnet": {"widths": (4, 9), "blocks": (1, 1)}, "vgg": TINY_VGG}
    for name, options in others.items():
        with pytest.raises(ValueError, match=f"body weights must be those of {name}.*of se_resnet with"):
            build(name, options | {"weights": str(path)})
    with pytest.raises(ValueError, match="must end its body in global average pooling. Received: custom_cnn"):
        body_layers(build("custom_cnn"))


def test_a_run_can_go_on_from_the_whole_of_another(tmp_path):
    source = random_norms(build("mobilenet"))
    source.save(tmp_path / "best.keras")
    whole, body = (build("mobilenet", {"weights": str(tmp_path / "best.keras"), "head": head}) for head in (True, False))
    assert same(values(whole.weights), values(source.weights))
    assert same(body_values(body), body_values(source)) and not same(values(body.weights), values(source.weights))
    build("mobilenet", {"weights": "gone.keras", "head": True}, pretrained=False)  # for weights that are set afterwards
    with pytest.raises(ValueError, match="a head can only come from a finished run's best.keras. Received: .*body.npz"):
        build("mobilenet", {"weights": str(save_body(source, tmp_path / "body.npz")), "head": True})


UNDER_JAX = """
import sys
import keras
import numpy as np
from emotion.architectures import build
folder = sys.argv[1]
assert keras.backend.backend() == "jax"
levels = np.load(folder + "/levels.npy")
np.save(folder + "/answers.npy", keras.models.load_model(folder + "/small.keras").predict(levels, verbose=0))
model = build("se_resnet", {"widths": (4, 8), "blocks": (1, 1), "weights": folder + "/body.npz"})
features = keras.Model(model.input, model.get_layer("activation_map").output)
np.save(folder + "/features.npy", features.predict(levels, verbose=0))
model.save(folder + "/from_jax.keras")
np.save(folder + "/from_jax.npy", model.predict(levels, verbose=0))
"""


def test_bodies_and_saved_networks_travel_between_tensorflow_and_jax(levels, tmp_path):
    small, source = small_network(), random_norms(build("se_resnet", TINY))
    np.save(tmp_path / "levels.npy", levels)
    small.save(tmp_path / "small.keras")
    load_body(source, save_body(source, tmp_path / "body.npz"))  # both then hold what float16 leaves
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", UNDER_JAX, str(tmp_path)]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = {name: np.load(tmp_path / f"{name}.npy") for name in ("answers", "features", "from_jax")}
    assert np.allclose(found["answers"], small(levels), atol=1e-4)
    features = np.array(keras.Model(source.input, source.get_layer("activation_map").output)(levels))
    assert np.allclose(found["features"], features, atol=1e-3 * np.abs(features).max())
    assert np.allclose(found["from_jax"], keras.models.load_model(tmp_path / "from_jax.keras")(levels), atol=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_frozen_is_frozen_statistics_included(fused, levels):
    model = random_norms(build("se_resnet", TINY))
    model = with_fused_normalization(model) if fused else model
    freeze_body(model, 0)
    before, head = body_values(model), values(model.layers[-1].weights)
    one_step(model, levels)
    assert same(before, body_values(model)) and not same(head, values(model.layers[-1].weights))


@pytest.mark.parametrize(("name", "unfrozen"), [("resnet50", 50), ("vgg16", 4), ("mobilenet_v2", -1)])
def test_the_last_layers_train_and_no_others_and_no_normalisation_of_the_body(networks, name, unfrozen):
    model = networks[name]
    freeze_body(model, unfrozen)
    trainable = {variable.path for variable in model.trainable_variables}
    body = body_layers(model)
    last = body if unfrozen == -1 else body[-unfrozen:]
    expected = [layer for layer in last if layer.weights and not isinstance(layer, keras.layers.BatchNormalization)]
    expected += [layer for layer in model.layers if layer.name.startswith("head_") or layer.name == "probabilities"]
    assert trainable == {variable.path for layer in expected for variable in layer.trainable_variables}
    names = {path.split("/")[0] for path in trainable}
    if name == "vgg16":
        assert {n for n in names if n.startswith("block")} == {"block5_conv1", "block5_conv2", "block5_conv3"}
    if name == "resnet50":
        assert "conv5_block1_1_conv" in names and not {n for n in names if n < "conv4_block5_2" and n.startswith("conv")}
    assert "head_norm" in names


@pytest.mark.parametrize("norms", [False, True])
def test_a_step_changes_exactly_the_unfrozen_layers(levels, norms):
    keras.utils.set_random_seed(0)  # a unit that no picture reaches would not change
    model = random_norms(build("se_resnet", TINY))
    freeze_body(model, 12, norms)
    before = {variable.path: value for variable, value in zip(model.weights, values(model.weights), strict=True)}
    one_step(model, levels)
    changed = {variable.path for variable in model.weights if not np.array_equal(before[variable.path], variable)}
    assert any("moving" in path for path in changed) == norms
    assert {path for path in changed if "moving" not in path} == {variable.path for variable in model.trainable_variables}
    assert 2 < len(changed) < len(before) - 2 * len(TINY["widths"])


def test_fusing_keeps_loaded_weights_also_of_a_network_within_a_network(tmp_path, levels):
    source = random_norms(build("se_resnet", TINY))
    fused = with_fused_normalization(source)
    assert same(values(source.weights), values(fused.weights)) and np.allclose(source(levels), fused(levels), atol=1e-6)
    assert any(isinstance(layer, FusedBatchNormalization) for layer in fused.layers)
    inputs = keras.Input(INPUT_SHAPE)
    nested = keras.Model(inputs, keras.layers.Dense(7, activation="softmax")(source(inputs)))
    nested.get_layer("se_resnet").trainable = False
    fused = with_fused_normalization(nested)
    assert np.allclose(nested(levels), fused(levels), atol=1e-6) and not fused.get_layer("se_resnet").trainable


def test_keras_has_no_weights_of_a_normalised_vgg16():
    with pytest.raises(ValueError, match="None or a path"):
        build("vgg16_norm", {"weights": "imagenet"})


@pytest.mark.parametrize("architecture", ["se_resnet", "vgg"])
def test_a_split_network_answers_as_the_whole_and_shares_its_weights(architecture, levels):
    model = random_norms(build(architecture, TINY if architecture == "se_resnet" else TINY_VGG))
    body, head = split(model)
    assert body.output_shape == head.input_shape and np.allclose(head(body(levels)), model(levels), atol=1e-6)
    model.layers[-1].set_weights([weight + 1 for weight in model.layers[-1].get_weights()])
    assert np.allclose(head(body(levels)), model(levels), atol=1e-6)


def test_a_head_alone_learns_from_each_picture_both_ways_round(drawn, tmp_path, monkeypatch):
    fed = []
    fit = keras.Model.fit

    def watched(self, stream, steps_per_epoch, **settings):
        fed.append((self.input_shape, steps_per_epoch))
        return fit(self, stream, steps_per_epoch=steps_per_epoch, **settings)

    monkeypatch.setattr(keras.Model, "fit", watched)
    train(staged("both", clean=False), drawn, tmp_path / "both", verbose=0)
    rows = len(drawn.training)
    assert fed == [((None, TINY_VGG["widths"][-1]), -(-2 * rows // 35)), ((None, 48, 48, 1), -(-rows // 35))]


def staged(name, **settings):
    """A run of two stages on drawn faces with everything on that a checkpoint must carry."""
    defaults = {
        "architecture": "vgg", "architecture_options": TINY_VGG, "epochs": 4, "batch_size": 35, "schedule": "cosine",
        "stages": [Stage(0, 0, 5e-3), Stage(2, 3, 2e-3)], "weight_decay": 0.01, "ema": 0.9,
        "augmentation": Augmentation(flip=True, rotation=10, shift=0.1),
    }  # fmt: skip
    return TrainingConfig(name, **(defaults | settings))


def history(folder):
    with (folder / "history.csv").open() as file:
        return [[float(value) for name, value in row.items() if name != "seconds"] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def uninterrupted(drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged") / "whole"
    return train(staged("whole"), drawn, folder, verbose=0), folder


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_run_killed_before_at_or_after_the_border_of_stages_goes_on_as_if_it_had_not_been(
    killed_after, uninterrupted, drawn, tmp_path, monkeypatch
):
    save = Recorder.save

    def save_and_die(self, epochs_done):
        save(self, epochs_done)
        if epochs_done == killed_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Recorder, "save", save_and_die)
        train(staged("whole"), drawn, tmp_path / "killed", verbose=0)
    with np.load(tmp_path / "killed" / "checkpoint.npz") as checkpoint:
        assert int(checkpoint["stage"]) == (0 if killed_after <= 2 else 1)
    train(staged("whole"), drawn, tmp_path / "killed", verbose=0)
    whole = uninterrupted[1]
    assert np.allclose(history(whole), history(tmp_path / "killed"), atol=1e-3)
    assert np.allclose(np.load(whole / "private_test.npy"), np.load(tmp_path / "killed" / "private_test.npy"), atol=1e-3)


def test_each_stage_has_its_own_rate_and_its_own_schedule(uninterrupted):
    rates = [row[5] for row in history(uninterrupted[1])]
    assert rates == pytest.approx([2.5e-3, 0, 1e-3, 0], abs=1e-6)  # after each epoch; a cosine over two epochs, twice


def test_patience_is_counted_in_the_last_stage(drawn, tmp_path):
    stages = [Stage(0, 0, 1e-9), Stage(3, -1, 1e-9)]
    train(staged("still", stages=stages, epochs=9, patience=2, ema=0.0), drawn, tmp_path / "still", verbose=0)
    assert len(history(tmp_path / "still")) == 5


def test_a_body_can_be_that_of_a_network_as_a_run_saves_it(tmp_path):
    finished = random_norms(build("vgg", TINY_VGG))
    finished.save(tmp_path / "best.keras")
    network = build("vgg", TINY_VGG | {"weights": str(tmp_path / "best.keras")})
    assert same(body_values(network), body_values(finished))
    assert not same(values(network.layers[-1].weights), values(finished.layers[-1].weights))
    with pytest.raises(ValueError, match="body weights must be those of se_resnet"):
        build("se_resnet", TINY | {"weights": str(tmp_path / "best.keras")})


def test_what_a_network_had_learned_from_is_told_from_the_records_beside_the_bodies(tmp_path):
    records = {"things": {"pictures": {"source": "tiny_imagenet", "used": {"training": 25000}}},
               "faces": {"source": {"trained_on": "photos of faces"}}}  # fmt: skip
    for name, record in records.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(json.dumps(record), encoding="utf-8")
    things, faces, other = ({"weights": str(tmp_path / name / "body.npz")} for name in (*records, "other"))
    assert transfer.learned_from(things) == ["25,000 pictures of tiny_imagenet"]
    assert transfer.learned_from(other) == [other["weights"]]
    assert transfer.learned_from({"weights": None}) == transfer.learned_from({}) == []
    run = {"config": {"architecture_options": faces}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text(json.dumps(run), encoding="utf-8")
    assert transfer.learned_from({"weights": str(tmp_path / "run" / "best.keras")}) == ["photos of faces"]
    committee = {"members": [{"architecture": "vgg", "options": options} for options in ({}, faces, things, faces)]}
    assert transfer.learned_from(committee) == ["photos of faces", "25,000 pictures of tiny_imagenet"]


def test_a_transfer_records_which_weights_it_started_from(drawn, tmp_path):
    body = save_body(build("vgg", TINY_VGG), tmp_path / "body.npz")
    options, stages = TINY_VGG | {"weights": str(body)}, [Stage(0, 0, 1e-9)]
    config = staged("from_body", architecture_options=options, epochs=1, stages=stages, ema=0.0)
    record = train(config, drawn, tmp_path / "run", verbose=0)
    assert record["body"] == {"file": str(body), "sha256": body_checksum(body)}
    model = keras.models.load_model(tmp_path / "run" / "best.keras")
    with np.load(body) as arrays:
        expected = [arrays[name] for name in sorted(arrays.files) if name.startswith("weight_")]
    assert same(expected, [v.astype(e.dtype) for v, e in zip(body_values(model), expected, strict=True)])


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"start": 1, "unfrozen": 0, "learning_rate": 1e-3}], r"must start at epoch 0.*\[1\]"),
        ([Stage(0, 0, 1e-3), Stage(0, 5, 1e-3)], r"each later than the last.*\[0, 0\]"),
        ([Stage(0, -2, 1e-3)], "unfrozen >= -1"),
        ([Stage(0, 0, 0)], "positive learning_rate"),
    ],
)
def test_bad_stages_are_refused(stages, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig("x", stages=stages)


def test_export_keeps_the_answers_of_a_transferred_network(tmp_path):
    from emotion.export import export_model, synthetic_faces

    model = small_network()
    model.layers[-1].bias.assign(np.linspace(-1, 1, 7))
    record = export_model(model, {"name": "small"}, tmp_path, synthetic_faces(256)[0])
    assert record["formats"]["tflite"]["max_difference"] < 1e-4
