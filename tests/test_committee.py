"""Several networks as one: the mean of their logits, a network of the same kind, a run like any other."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from emotion import architectures, committee
from emotion.activation import with_activation_map
from emotion.looks import with_looks
from emotion.training import predict, train
from emotion.training_config import TrainingConfig

CONFIGS = [
    TrainingConfig("one", "vgg", {"widths": [4, 8], "convolutions": [1, 1], "dropout": 0.2}, epochs=1),
    TrainingConfig("two", "se_resnet", {"widths": [6, 12], "blocks": [1, 1]}, epochs=1, seed=1),
]


@pytest.fixture(scope="module")
def networks():
    keras.utils.set_random_seed(0)
    models = [architectures.build(config.architecture, config.architecture_options) for config in CONFIGS]
    for model in models:  # as if trained: every weight counts, the running means of batch normalisation included
        model.set_weights([weight + np.random.default_rng(0).uniform(0, 0.2, weight.shape) for weight in model.get_weights()])
    return models


@pytest.fixture(scope="module")
def grey():
    return np.random.default_rng(1).uniform(0, 255, (5, 48, 48, 1)).astype("float32")


def test_the_answer_is_that_of_the_mean_logits(networks, grey):
    together, options = committee.as_one_network(networks, CONFIGS)
    product = np.prod([model.predict(grey, verbose=0) for model in networks], axis=0) ** 0.5
    np.testing.assert_allclose(together.predict(grey, verbose=0), product / product.sum(axis=1, keepdims=True), atol=1e-5)
    rebuilt = architectures.build("committee", json.loads(json.dumps(options)))
    rebuilt.set_weights(together.get_weights())
    np.testing.assert_allclose(rebuilt.predict(grey, verbose=0), together.predict(grey, verbose=0), atol=1e-6)


def test_one_member_can_count_for_more_than_another(networks, grey):
    together, options = committee.as_one_network(networks, CONFIGS, shares=[1, 3])
    one, two = (model.predict(grey, verbose=0) for model in networks)
    product = one**0.25 * two**0.75
    np.testing.assert_allclose(together.predict(grey, verbose=0), product / product.sum(axis=1, keepdims=True), atol=1e-5)
    apart = committee.members(together, json.loads(json.dumps(options)))
    for member, model in zip(apart, networks, strict=True):
        np.testing.assert_allclose(member.get_weights()[-2], model.get_weights()[-2], rtol=1e-5)


@pytest.mark.parametrize("shares", [[1], [1, 0]])
def test_shares_that_say_nothing_of_a_member_are_refused(networks, shares):
    with pytest.raises(ValueError, match="one for each of 2 members"):
        committee.as_one_network(networks, CONFIGS, shares=shares)


def test_it_has_an_activation_map_that_is_the_mean_of_its_members(networks, grey):
    together, _ = committee.as_one_network(networks, CONFIGS)
    _, evidence = with_activation_map(together).predict(grey, verbose=0)
    members = [with_activation_map(model).predict(grey, verbose=0)[1] for model in networks]
    np.testing.assert_allclose(evidence, np.mean(members, axis=0), atol=1e-4)


def test_members_whose_maps_differ_in_size_answer_as_the_mean_of_their_logits(networks, grey):
    smaller = TrainingConfig("three", "vgg", {"widths": [4, 4, 8, 8], "convolutions": [1, 1, 1, 1]})
    models = [networks[0], architectures.build(smaller.architecture, smaller.architecture_options)]
    assert len({model.get_layer("activation_map").output.shape[1] for model in models}) == 2
    together, _ = committee.as_one_network(models, [CONFIGS[0], smaller])
    product = np.prod([model.predict(grey, verbose=0) for model in models], axis=0) ** 0.5
    np.testing.assert_allclose(together.predict(grey, verbose=0), product / product.sum(axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("looks", [1, 2])
def test_it_can_be_taken_apart(networks, grey, looks):
    together, options = committee.as_one_network(networks, CONFIGS)
    members = committee.members(with_looks(together, looks), options)
    for member, model in zip(members, networks, strict=True):
        for weight, expected in zip(member.get_weights()[:-1], model.get_weights()[:-1], strict=True):  # all but the bias
            np.testing.assert_allclose(weight, expected, rtol=1e-6)
    again, _ = committee.as_one_network(members, CONFIGS)
    np.testing.assert_allclose(again.predict(grey, verbose=0), together.predict(grey, verbose=0), atol=1e-5)


def test_what_is_no_committee_has_no_members(networks):
    with pytest.raises(ValueError, match="vgg"):
        committee.members(networks[0], {"members": []})


@pytest.fixture
def runs(drawn, tmp_path):
    for config in CONFIGS:
        train(config, drawn, tmp_path / config.name, verbose=0)
    return tmp_path


def test_the_new_run_is_one_like_any_other(drawn, runs):
    record = committee.make_run(["one", "two"], "pair", drawn, runs)
    other = json.loads((runs / "one" / "record.json").read_text())
    assert record.keys() == other.keys() | {"members"} and record["members"] == ["one", "two"]
    answers = np.load(runs / "pair" / "public_test.npy")
    product = np.prod([np.load(runs / name / "public_test.npy") for name in ("one", "two")], axis=0) ** 0.5
    np.testing.assert_allclose(answers, product / product.sum(axis=1, keepdims=True), atol=1e-5)
    loaded = keras.saving.load_model(runs / "pair" / "best.keras", compile=False)
    np.testing.assert_allclose(predict(loaded, drawn.public_test.images), answers, atol=1e-6)
    assert (record["metrics"]["public_test"]["accuracy"]["value"]) == pytest.approx(
        (answers.argmax(axis=1) == drawn.public_test.labels).mean()
    )
    assert TrainingConfig.from_dict(record["config"]).architecture == "committee"


def test_with_a_member_that_was_fitted_on_publictest_it_has_no_score_there(drawn, runs):
    config = replace(CONFIGS[1], name="refit", refit=True, keep="last")
    train(config, drawn, runs / "refit", verbose=0)
    record = committee.make_run(["one", "refit"], "pair", drawn, runs)
    assert list(record["metrics"]) == ["private_test"] and "Training and PublicTest" in record["protocol"]
    assert not (runs / "pair" / "public_test.npy").exists()


def test_a_member_without_weights_is_named(drawn, runs):
    (runs / "two" / "best.keras").unlink()
    with pytest.raises(FileNotFoundError, match="two"):
        committee.make_run(["one", "two"], "pair", drawn, runs)
    assert not (runs / "pair").exists()


def test_a_network_without_a_last_map_cannot_join(drawn, runs):
    config = TrainingConfig("three", architecture_options={"filters": [4], "dense": 8}, epochs=1)
    train(config, drawn, runs / "three", verbose=0)
    with pytest.raises(ValueError, match="activation_map"):
        committee.make_run(["one", "three"], "pair", drawn, runs)
    assert not (runs / "pair").exists()


def test_the_members_of_an_exported_committee_get_their_weights_back(drawn, runs):
    record = committee.make_run(["one", "two"], "pair", drawn, runs)
    shipped = runs / "pair" / "best.keras"
    shipped.with_suffix(".json").write_text(json.dumps(record))
    kept, lost = (runs / name / "best.keras" for name in ("one", "two"))
    before, weights = kept.read_bytes(), keras.saving.load_model(lost, compile=False).get_weights()
    lost.unlink()
    assert committee.restore(shipped, runs) == [lost]
    assert kept.read_bytes() == before
    for weight, expected in zip(keras.saving.load_model(lost, compile=False).get_weights()[:-1], weights[:-1], strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-6)
