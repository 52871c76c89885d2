"""Batch normalisation recalibrated: the statistics of the pictures as they are, no weight fitted, a run like any other."""

import csv
import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from emotion import architectures, committee, recalibration
from emotion.recalibration import normalizations as norms
from emotion.training import predict, train
from emotion.training_config import TrainingConfig

CONFIG = TrainingConfig("one", "se_resnet", {"widths": [4, 8], "blocks": [1, 1], "drop_path": 0.5}, epochs=1)


def statistics(model):
    return [norm.get_weights()[2:] for norm in norms(model)]


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    return architectures.build(CONFIG.architecture, CONFIG.architecture_options)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (16, 48, 48), dtype=np.uint8)


def test_a_layer_holds_the_mean_over_the_batches_of_what_it_meets(network, pictures):
    recalibration.recalibrate(network, pictures, batch_size=8)
    first = norms(network)[0]  # what it meets hangs on no other's statistics
    seen = keras.Model(network.inputs[0], first.input)
    values = [np.asarray(seen(pictures[i : i + 8].astype(np.float32)[..., None])) for i in (0, 8)]
    _, _, mean, variance = first.get_weights()
    np.testing.assert_allclose(mean, np.mean([v.mean(axis=(0, 1, 2)) for v in values], axis=0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(variance, np.mean([v.var(axis=(0, 1, 2)) for v in values], axis=0), rtol=1e-2)


def test_nothing_but_the_statistics_changes(network, pictures):
    drops = [layer for layer in network.layers if isinstance(layer, keras.layers.Dropout)]

    def settings():
        return [n.momentum for n in norms(network)], [d.rate for d in drops]

    weights, before = network.get_weights(), settings()
    recalibration.recalibrate(network, pictures, batch_size=8)
    assert settings() == before
    moved = sum(not np.array_equal(a, b) for a, b in zip(weights, network.get_weights(), strict=True))
    assert moved == 2 * len(norms(network))


def test_dropped_branches_do_not_count_and_the_same_pictures_give_the_same(network, pictures):
    recalibration.recalibrate(network, pictures, batch_size=8)
    first = statistics(network)
    recalibration.recalibrate(network, pictures, batch_size=8)
    for one, two in zip(first, statistics(network), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


def test_members_of_a_committee_are_recalibrated_too(network, pictures):
    together, _ = committee.as_one_network([network, network], [CONFIG, CONFIG])
    before = statistics(together)
    recalibration.recalibrate(together, pictures, batch_size=8)
    assert len(before) == 2 * len(norms(network))
    assert all(not np.array_equal(a[0], b[0]) for a, b in zip(before, statistics(together), strict=True))


def test_frozen_layers_keep_theirs(network, pictures):
    first, *others = norms(network)
    first.trainable = False
    before = statistics(network)
    recalibration.recalibrate(network, pictures, batch_size=8)
    np.testing.assert_array_equal(first.get_weights()[2:], before[0])
    assert all(not np.array_equal(a, b.get_weights()[2:]) for a, b in zip(before[1:], others, strict=True))


def test_what_cannot_be_recalibrated_is_refused(network, pictures):
    plain = architectures.build("custom_cnn", {"filters": [4], "dense": 8})
    with pytest.raises(ValueError, match="must have batch normalisation.*custom_cnn with 0"):
        recalibration.recalibrate(plain, pictures, batch_size=8)
    with pytest.raises(ValueError, match="64 pictures or more.*16 pictures"):
        recalibration.recalibrate(network, pictures)


def test_the_new_run_is_one_like_any_other(drawn, tmp_path):
    train(CONFIG, drawn, tmp_path / "one", verbose=0)
    before = (tmp_path / "one" / "record.json").read_text()
    record = recalibration.make_run("one", "again", drawn, tmp_path)
    assert (tmp_path / "one" / "record.json").read_text() == before
    assert record.keys() == json.loads(before).keys() | {"recalibrated"} and record["recalibrated"] == "one"
    assert TrainingConfig.from_dict(record["config"]).architecture_options == CONFIG.architecture_options
    answers = np.load(tmp_path / "again" / "public_test.npy")
    assert not np.allclose(answers, np.load(tmp_path / "one" / "public_test.npy"))
    loaded = keras.saving.load_model(tmp_path / "again" / "best.keras", compile=False)
    np.testing.assert_allclose(predict(loaded, drawn.public_test.images), answers, atol=1e-6)
    assert "recalibrated" not in committee.make_run(["again", "one"], "pair", drawn, tmp_path)


def test_a_run_without_weights_is_named(drawn, tmp_path):
    with pytest.raises(FileNotFoundError, match="best.keras.*nobody"):
        recalibration.make_run("nobody", "again", drawn, tmp_path)
    assert not (tmp_path / "again").exists()


def test_a_run_can_recalibrate_after_each_epoch_and_is_fitted_as_if_it_did_not(drawn, tmp_path):
    settings = {"ema": 0.9, "epochs": 2, "optimizer": "sgd", "learning_rate": 0.05}
    plain, careful = (replace(CONFIG, name=name, recalibrate=n, **settings) for name, n in (("plain", 0), ("careful", 64)))
    assert len(drawn.training) >= 64
    for config in (plain, careful):
        train(config, drawn, tmp_path / config.name, verbose=0)
    rows = {}
    for name in ("plain", "careful"):
        with (tmp_path / name / "history.csv").open() as file:
            rows[name] = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows["plain"]] == pytest.approx([float(row["loss"]) for row in rows["careful"]])
    assert [row["val_loss"] for row in rows["plain"]] != [row["val_loss"] for row in rows["careful"]]
    kept = keras.saving.load_model(tmp_path / "careful" / "best.keras", compile=False)
    before = statistics(kept)
    images = drawn.training.images
    recalibration.recalibrate(kept, images[np.random.default_rng(0).permutation(len(images))[:64]])
    for one, two in zip(before, statistics(kept), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [-1, 63])
def test_too_few_pictures_to_recalibrate_on_are_refused(count):
    with pytest.raises(ValueError, match=f"recalibrate must be 0 or .* Received: {count}"):
        TrainingConfig("one", recalibrate=count)


def test_a_run_without_batch_normalisation_is_refused_before_it_starts(drawn, tmp_path):
    config = TrainingConfig("plain", "custom_cnn", {"filters": [4], "dense": 8}, epochs=1, recalibrate=64)
    with pytest.raises(ValueError, match="batch normalisation.*custom_cnn"):
        train(config, drawn, tmp_path / "plain", verbose=0)
    assert not (tmp_path / "plain" / "checkpoint.npz").exists()
