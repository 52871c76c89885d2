"""The search for settings: what it asks, how it prunes, and that a stopped or killed one goes on as if it had not been."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from emotion import fitting, training, tuning
from emotion.augmentation import NONE

ROOT = Path(__file__).resolve().parent.parent


def made_up_accuracy(config) -> float:
    """A hill over the settings, its top at a learning rate of 1e-3 and dropout 0.4."""
    distance = abs(np.log10(config.learning_rate) + 3) + 2 * abs(config.architecture_options["dropout"] - 0.4)
    return 0.6 - 0.2 * distance - 0.05 * (config.optimizer == "sgd")


def made_up_fit(config, images, targets, validation, folder, verbose, callbacks):
    """Stands in for `fitting.fit`: curves that rise to `made_up_accuracy`, told to the callbacks as Keras does."""
    model = SimpleNamespace(stop_training=False)
    for callback in callbacks:
        callback.set_model(model)
    for epoch in range(config.epochs):
        accuracy = made_up_accuracy(config) * (1 - 0.5 ** (epoch + 2))
        for callback in callbacks:
            callback.on_epoch_end(epoch, {"val_accuracy": accuracy})
        if model.stop_training:
            break
    return None, SimpleNamespace(best=accuracy, seconds=1.0)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(fitting, "fit", made_up_fit)


@pytest.fixture(scope="module")
def study(tmp_path_factory, drawn):
    """A whole study of made-up trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "fit", made_up_fit)
        return tuning.search(drawn, 24, 8, tmp_path_factory.mktemp("study") / "study.jsonl")


def told(study) -> list:
    return [(trial.params, trial.value, trial.state, trial.intermediate_values) for trial in tuning.finished(study)]


def test_the_settings_chosen_by_hand_are_tried_first(study):
    assert study.trials[0].params == tuning.BY_HAND


def test_the_search_stays_in_its_space_and_finds_more_than_the_first_guess(study):
    for trial in study.trials:
        assert 1e-4 <= trial.params["learning_rate"] <= 1e-2 and trial.params["batch_size"] in (32, 64, 128)
        assert 0.2 <= trial.params["dropout"] <= 0.6 and 0 <= trial.params["augmentation"] <= 1.5
    assert {trial.params["optimizer"] for trial in study.trials} == {"adam", "sgd"}
    assert {trial.params["schedule"] for trial in study.trials} == {"constant", "cosine", "step"}
    assert study.best_value > study.trials[0].value


def test_a_trial_below_the_median_is_pruned_once_averages_have_settled_and_never_after_its_last_epoch(study):
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        assert tuning.FIRST_PRUNED_EPOCH <= trial.last_step < 8
        before = [t for t in study.trials[: trial.number] if t.state == TrialState.COMPLETE]
        assert trial.value < np.median([t.intermediate_values[trial.last_step] for t in before])
    assert all(trial.last_step == 8 for trial in study.trials if trial.state == TrialState.COMPLETE)


def test_a_stopped_search_goes_on_as_if_it_had_not_been(study, quick, drawn, tmp_path):
    path = tmp_path / "study.jsonl"
    tuning.search(drawn, 11, 8, path)
    assert told(tuning.search(drawn, 24, 8, path)) == told(study)
    size = path.stat().st_size
    assert len(tuning.search(drawn, 24, 8, path).trials) == 24  # nothing is left to do
    assert path.stat().st_size - size < 200


KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from pathlib import Path
from conftest import drawn
from test_tuning import made_up_fit
from emotion import fitting, tuning
def dies_in_the_middle(config, *rest):
    if config.name == "trial_{trial}":
        rest[-1][0].trial.report(0.1, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    return made_up_fit(config, *rest)
fitting.fit = dies_in_the_middle
tuning.search(drawn.__wrapped__(), 24, 8, Path(sys.argv[1]))
"""


@pytest.mark.parametrize("trial", [0, 13])
def test_a_killed_trial_does_not_count_and_its_settings_are_asked_again(trial, study, quick, drawn, tmp_path):
    path = tmp_path / "study.jsonl"
    code = KILLED.format(root=str(ROOT), trial=trial)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    killed = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = tuning.search(drawn, 24, 8, path)
    assert told(resumed) == told(study)
    failed = [t for t in resumed.trials if t.state == TrialState.FAIL]
    assert [t.number for t in failed] == [trial] and failed[0].params == resumed.trials[trial + 1].params


@pytest.mark.parametrize("change", [{"epochs": 9}, {"checksum": "other"}])
def test_a_study_of_other_epochs_or_data_is_refused(change, quick, drawn, tmp_path):
    path = tmp_path / "study.jsonl"
    tuning.search(drawn, 1, 8, path)
    data = replace(drawn, checksum=change.get("checksum", drawn.checksum))
    with pytest.raises(ValueError, match="a study must keep its settings"):
        tuning.search(data, 2, change.get("epochs", 8), path)


def test_a_recorded_study_is_read_from_its_file_and_reading_leaves_it_alone(study, quick, drawn, tmp_path):
    path = tmp_path / "study.jsonl"
    tuning.search(drawn, 24, 8, path)
    before = path.read_bytes()
    read = tuning.open_study(path)
    assert told(read) == told(study) and read.user_attrs["epochs"] == 8 and read.best_params == study.best_params
    assert path.read_bytes() == before and len(before) < 200_000
    assert all(json.loads(line) for line in before.decode().splitlines())
    assert str(tmp_path) not in before.decode()


def test_a_missing_study_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("python -m emotion.tuning")):
        tuning.open_study(tmp_path / "absent.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_the_best_settings_become_full_runs_one_of_them_with_enough_augmentation(study):
    configs, best = tuning.full_configs(study), study.best_params
    assert configs[0].augmentation == tuning.augmentation_of(best["augmentation"])
    assert configs[-1].augmentation == tuning.augmentation_of(max(best["augmentation"], 1))
    strong = SimpleNamespace(best_params=best | {"augmentation": 1.25})
    assert [config.name for config in tuning.full_configs(strong)] == ["custom_cnn_tuned"]
    weak = SimpleNamespace(best_params=best | {"augmentation": 0.0})
    assert [config.name for config in tuning.full_configs(weak)] == ["custom_cnn_as_found", "custom_cnn_tuned"]
    config = configs[-1]
    assert config.name == "custom_cnn_tuned" and config.epochs > study.user_attrs["epochs"]
    assert config.architecture_options == {"batch_norm": True, "dropout": pytest.approx(best["dropout"])}
    assert (config.batch_size, config.optimizer, config.schedule) == (best["batch_size"], best["optimizer"], best["schedule"])
    assert config.learning_rate == pytest.approx(best["learning_rate"], rel=0.01)
    assert training.TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_strength_scales_the_augmentation():
    assert tuning.augmentation_of(0) == NONE
    assert tuning.augmentation_of(1) == tuning.FULL_STRENGTH
    strong = tuning.augmentation_of(1.5)
    assert strong.flip and (strong.rotation, strong.zoom, strong.shift, strong.contrast) == (15, 0.15, 0.09, 0.3)


def test_a_real_trial_trains_scores_public_test_alone_and_leaves_float32_behind(drawn, tmp_path):
    private = replace(drawn.private_test, images=None, labels=None)  # reading it would raise
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({**tuning.BY_HAND, "batch_size": 32})
    study.optimize(lambda trial: tuning._accuracy(trial, replace(drawn, private_test=private), 2, 0), n_trials=1)
    trial = study.trials[0]
    assert list(trial.intermediate_values) == [1, 2]
    assert trial.value == max(trial.intermediate_values.values())
    assert training.keras.config.dtype_policy().name == "float32"


def test_the_command_searches_and_then_trains_the_winner(quick, drawn, tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(tuning, "load_fer2013", lambda path: drawn)
    monkeypatch.setattr(tuning.cleaning, "check_official", lambda data: None)
    monkeypatch.setattr(training, "train", lambda config, data, verbose: trained.append(config))
    path = tmp_path / "study.jsonl"
    tuning.main(["--trials", "3", "--epochs", "8", "--storage", str(path), "--then-train"])
    assert trained == tuning.full_configs(tuning.open_study(path))
    assert "trial 3 of 3" in capsys.readouterr().out
