"""Searches settings of the custom CNN with Optuna: `python -m emotion.tuning --trials 24 --epochs 6`.

A trial is a short training, scored on PublicTest after each epoch; one that lags behind the others is given up early (pruned).
PrivateTest is never scored. The study is a text file, one JSON line an event, so that a search that was stopped or killed goes on
when the same command is given again: the trial that was under way is dropped and its settings are proposed anew. One process at a
time: a second one would take the first one's trial for a killed one.

Keras and NumPy only, as `emotion.training`, plus Optuna.
"""

import argparse
import os
import tempfile
from pathlib import Path

import keras
import optuna
from optuna.trial import TrialState

from emotion import cleaning, fitting, training
from emotion.augmentation import NONE, Augmentation
from emotion.dataset import FER2013, load_fer2013
from emotion.training_config import TrainingConfig

STORAGE = training.RUNS.parent / "tuning" / "custom_cnn.jsonl"
STUDY, AS_FOUND, TUNED = "custom_cnn", "custom_cnn_as_found", "custom_cnn_tuned"
FULL_STRENGTH = Augmentation(flip=True, rotation=10, zoom=0.1, shift=0.06, contrast=0.2)
"""What an augmentation of strength 1 does."""
BY_HAND = {"learning_rate": 2e-3, "batch_size": 128, "optimizer": "adam", "schedule": "cosine", "dropout": 0.5,
           "weight_decay": 0.0, "augmentation": 1.0}  # fmt: skip
"""The first trial: what one would have chosen without a search."""
RANDOM_TRIALS = 8
"""Trials that are drawn at random before the sampler begins to learn; as many are completed before any is pruned."""
FIRST_PRUNED_EPOCH = 4
"""The averaged weights (`ema`) need some 600 steps to forget where they started, which is three epochs of the largest batch."""


def suggest(trial: optuna.Trial) -> dict:
    """Asks a trial for its settings; this is the search space."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", (32, 64, 128)),
        "optimizer": trial.suggest_categorical("optimizer", ("adam", "sgd")),
        "schedule": trial.suggest_categorical("schedule", ("constant", "cosine", "step")),
        "dropout": trial.suggest_float("dropout", 0.2, 0.6, step=0.05),
        "weight_decay": trial.suggest_categorical("weight_decay", (0.0, 0.005, 0.05)),
        "augmentation": trial.suggest_float("augmentation", 0.0, 1.5, step=0.25),
    }


def augmentation_of(strength: float) -> Augmentation:
    """Returns `FULL_STRENGTH` with all amounts times `strength`; half of the pictures are mirrored at any strength above 0."""
    if not strength:
        return NONE
    amounts = {name: round(getattr(FULL_STRENGTH, name) * strength, 4) for name in ("rotation", "zoom", "shift", "contrast")}
    return Augmentation(flip=True, **amounts)


def config_of(settings: dict, name: str, epochs: int, patience: int = 0, note: str = "") -> TrainingConfig:
    """Returns the run of some settings, as `suggest` returns them; numbers are rounded to what a reader can retype."""
    return TrainingConfig(
        name,
        architecture_options={"batch_norm": True, "dropout": round(settings["dropout"], 2)},
        epochs=epochs,
        batch_size=settings["batch_size"],
        optimizer=settings["optimizer"],
        learning_rate=float(f"{settings['learning_rate']:.3g}"),
        schedule=settings["schedule"],
        weight_decay=settings["weight_decay"],
        augmentation=augmentation_of(settings["augmentation"]),
        ema=0.995,
        patience=patience,
        precision="mixed_bfloat16",
        note=note,
    )


def full_configs(study: optuna.Study, epochs: int = 36, patience: int = 12) -> list[TrainingConfig]:
    """Returns the full runs that a study leads to; PublicTest chooses between them.

    The first, `custom_cnn_as_found`, has the best completed trial's settings. The second, `custom_cnn_tuned`, has them with an
    augmentation of at least strength 1: a trial ends before the network can learn its pictures by heart, so it sees what
    augmentation costs and not what it is for. Where the best trial has that much anyway there is the second alone. Epochs and
    patience are those of run `custom_cnn_augmented`, so that what was searched makes the difference.

    Raises:
        ValueError: no trial has been completed.
    """
    best = study.best_params
    long = best | {"augmentation": max(best["augmentation"], 1.0)}
    note = "Notebook 06: the settings that won the search, trained fully"
    tuned = config_of(long, TUNED, epochs, patience, f"{note}, with the augmentation that a long training needs.")
    if long == best:
        return [tuned]
    return [config_of(best, AS_FOUND, epochs, patience, f"{note}, just as they were found."), tuned]


def open_study(path: Path = STORAGE) -> optuna.Study:
    """Opens a recorded study for reading.

    Raises:
        FileNotFoundError: there is none; the message holds the command that makes one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there must be a recorded study at {path.name}. Found none. Run: python -m emotion.tuning")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.load_study(study_name=STUDY, storage=_storage(path))


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Returns the trials that count: completed or pruned, in the order of their start."""
    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def search(data: FER2013, trials: int, epochs: int, path: Path = STORAGE, verbose: int | str = 0) -> optuna.Study:
    """Begins a study or goes on with it until it holds `trials` finished trials.

    Args:
        data: as loaded; Training is cleaned here.
        trials: completed and pruned ones together, those of earlier calls included.
        epochs: of each trial; schedules end there.
        path: file of the study.
        verbose: as in `keras.Model.fit`.

    Returns:
        The study; its objective is the PublicTest accuracy of a trial's best epoch, 0..1.

    Raises:
        ValueError: the file holds a study of other data or of another number of epochs.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=RANDOM_TRIALS, n_warmup_steps=FIRST_PRUNED_EPOCH)
    study = optuna.create_study(
        study_name=STUDY, storage=_storage(path), direction="maximize", pruner=pruner, load_if_exists=True
    )
    _claim(study, {"epochs": epochs, "data": data.checksum, "keras": keras.__version__})
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # its process was killed
    fitted, _ = cleaning.clean(data)
    while (done := len(finished(study))) < trials:
        if not done and not study.get_trials(states=(TrialState.WAITING,)):
            study.enqueue_trial(BY_HAND)
        # A function of the finished trials alone: a study that was killed proposes what it would have proposed.
        study.sampler = optuna.samplers.TPESampler(seed=done, n_startup_trials=RANDOM_TRIALS, multivariate=True)
        study.optimize(lambda trial: _accuracy(trial, fitted, epochs, verbose), n_trials=1)
        print(_line(finished(study)[-1], done + 1, trials), flush=True)
    return study


def _storage(path: Path) -> optuna.storages.JournalStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))


def _claim(study: optuna.Study, settings: dict) -> None:
    """Writes down what all trials of a study share, or makes sure that what is written there is the same."""
    recorded = study.user_attrs
    other = [name for name in ("epochs", "data") if recorded.get(name, settings[name]) != settings[name]]
    if other:
        received = ", ".join(f"{name} {settings[name]}, recorded {recorded[name]}" for name in other)
        raise ValueError(f"a study must keep its settings; move its file away to begin another. Received: {received}")
    for name in settings.keys() - recorded.keys():
        study.set_user_attr(name, settings[name])


class _Reporter(keras.callbacks.Callback):
    """Tells the study the PublicTest accuracy after each epoch and stops a trial that it prunes."""

    def __init__(self, trial: optuna.Trial, epochs: int):
        super().__init__()
        self.trial, self.epochs, self.pruned = trial, epochs, False

    def on_epoch_end(self, epoch, logs=None):
        self.trial.report(logs["val_accuracy"], epoch + 1)
        # After the last epoch there is nothing left to save, and a completed trial tells more than a pruned one.
        if epoch + 1 < self.epochs and self.trial.should_prune():
            self.pruned = self.model.stop_training = True


def _accuracy(trial: optuna.Trial, data: FER2013, epochs: int, verbose: int | str) -> float:
    """The objective: fits the settings of a trial for a few epochs and returns the best PublicTest accuracy."""
    keras.utils.clear_session()  # or the networks of former trials would stay in memory
    config = config_of(suggest(trial), f"trial_{trial.number}", epochs)
    reporter = _Reporter(trial, epochs)
    with tempfile.TemporaryDirectory() as folder:
        targets = cleaning.soft_targets(data.training, config.label_share)
        _, recorder = fitting.fit(config, data.training.images, targets, data.public_test, Path(folder), verbose, [reporter])
    trial.set_user_attr("seconds", round(recorder.seconds, 1))
    if reporter.pruned:
        raise optuna.TrialPruned
    return recorder.best


def _line(trial: optuna.trial.FrozenTrial, number: int, trials: int) -> str:
    settings = ", ".join(f"{name} {v:.3g}" if isinstance(v, float) else f"{name} {v}" for name, v in trial.params.items())
    end = "" if trial.state == TrialState.COMPLETE else f", pruned after epoch {trial.last_step}"
    return f"trial {number} of {trials}: {trial.value:.2%}{end} ({settings})"


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.tuning --help`."""
    parser = argparse.ArgumentParser(description="Search the custom CNN's settings; run the same command again to go on.")
    parser.add_argument("--trials", type=int, default=24, help="finished trials in the end, earlier ones included (24)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of a trial (6)")
    parser.add_argument("--data", type=Path, help="data set (default: looked for as emotion.dataset does)")
    parser.add_argument("--storage", type=Path, default=STORAGE, help="file of the study (saved_models/tuning/custom_cnn.jsonl)")
    parser.add_argument("--then-train", action="store_true", help=f"afterwards train the best settings fully ({TUNED})")
    options = parser.parse_args(arguments)
    data = load_fer2013(options.data)
    cleaning.check_official(data)
    study = search(data, options.trials, options.epochs, options.storage, verbose=2)
    print(f"best: {study.best_value:.2%} with {study.best_params}")
    if options.then_train:
        for config in full_configs(study):
            training.train(config, data, verbose=2)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
