"""Fits one network by one `TrainingConfig`, resumably, and writes down everything a reader needs to trust the result.

Training is fitted, PublicTest chooses the epoch, PrivateTest is scored once, at the end. A run's folder holds

    config.json        the settings
    history.csv        one line per epoch, written as it goes
    checkpoint.npz     all that a killed run needs to go on as if nothing had happened; removed at the end
    best.keras         the network of the best epoch (not in git)
    public_test.npy, private_test.npy    float32 (3589, 7), its probabilities in the data set's order
    record.json        settings, results with 95 % intervals, checksum of the data, versions, duration

Keras and NumPy only: runs under TensorFlow, and under JAX where there is no TensorFlow.
"""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from emotion import cleaning
from emotion.architectures import build
from emotion.augmentation import RandomAugment
from emotion.batches import batches
from emotion.dataset import FER2013, load_fer2013
from emotion.evaluation import evaluate
from emotion.fused_norm import with_fused_normalization
from emotion.labels import EMOTIONS
from emotion.recorder import Recorder, predict
from emotion.training_config import TrainingConfig

__all__ = ["RUNS", "TrainingConfig", "fit", "git_commit", "learning_rate", "main", "make_optimizer", "predict", "train"]

RUNS = Path(__file__).resolve().parent.parent / "saved_models" / "runs"


def learning_rate(config: TrainingConfig, steps_per_epoch: int):
    """Returns the schedule, a function of the optimizer's own step count (so it goes on after a resume)."""
    peak, total, warmup = config.learning_rate, config.epochs * steps_per_epoch, config.warmup_epochs * steps_per_epoch
    if config.schedule == "step":
        return keras.optimizers.schedules.PiecewiseConstantDecay([total // 2, total * 3 // 4], [peak, peak * 0.1, peak * 0.01])
    if config.schedule == "cosine":
        if warmup:
            return keras.optimizers.schedules.CosineDecay(peak / 100, total - warmup, warmup_target=peak, warmup_steps=warmup)
        return keras.optimizers.schedules.CosineDecay(peak, total)
    return peak


def make_optimizer(config: TrainingConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Builds the uncompiled optimizer of a config."""
    common = {
        "learning_rate": learning_rate(config, steps_per_epoch),
        "weight_decay": config.weight_decay or None,
        "use_ema": config.ema > 0,
        "ema_momentum": config.ema or 0.99,
    }
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True, **common)
    else:
        optimizer = keras.optimizers.Adam(**common)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def train(config: TrainingConfig, data: FER2013, run_dir: str | Path | None = None, verbose: int | str = "auto") -> dict:
    """Trains (or goes on training, or returns the finished record of) one run.

    Args:
        config: the settings.
        data: as loaded; cleaned here if the config says so.
        run_dir: folder of the run; None is saved_models/runs/<name>.
        verbose: as in `keras.Model.fit`.

    Returns:
        The record that was written to record.json.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    folder = Path(run_dir) if run_dir else RUNS / config.name
    _claim(folder, config)
    if (folder / "record.json").is_file():
        return json.loads((folder / "record.json").read_text(encoding="utf-8"))
    commit = git_commit()
    fitted, removed = cleaning.clean(data) if config.clean else (data, [])
    recorder = fit(config, fitted, folder, verbose)
    # Rebuilt under float32, so that the saved network does not carry the precision it was trained with.
    best = build(config.architecture, config.architecture_options)
    best.set_weights(recorder.best_weights)
    best.save(folder / "best.keras")
    record = {**_record(config, fitted, removed, best, recorder, folder), "git_commit": commit}
    (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (folder / "checkpoint.npz").unlink(missing_ok=True)
    return record


def _claim(folder: Path, config: TrainingConfig) -> None:
    """Writes config.json, or makes sure that the one there says the same."""
    path, text = folder / "config.json", json.dumps(config.to_dict(), indent=2) + "\n"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != json.loads(text):
        raise ValueError(f"a run must keep its settings; use another name. Received: other settings for {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def fit(config: TrainingConfig, data: FER2013, folder: Path, verbose: int | str = "auto", callbacks: Sequence = ()) -> Recorder:
    """Fits a network and scores PublicTest after each epoch. Reads no PrivateTest and writes no record: `train` adds both.

    Args:
        config: the settings, save that `clean` is left to the caller.
        data: cleaned already, where that is wanted.
        folder: an existing folder for history.csv and the checkpoint; a checkpoint there is gone on from.
        verbose: as in `keras.Model.fit`.
        callbacks: further Keras callbacks; they come after the recorder and find its `val_accuracy` among their logs.

    Returns:
        The recorder, with the best epoch's accuracy and weights.
    """
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    try:
        return _fit(config, data, folder, verbose, callbacks)
    finally:
        keras.config.set_dtype_policy("float32")


def _fit(config: TrainingConfig, data: FER2013, folder: Path, verbose, callbacks) -> Recorder:
    core = with_fused_normalization(build(config.architecture, config.architecture_options))
    # Augmentation wraps the network and is no part of it: what is saved and served has none.
    model = keras.Sequential([keras.Input(core.input_shape[1:]), RandomAugment(config.augmentation, config.seed), core])
    images, targets = data.training.images, cleaning.soft_targets(data.training, config.label_share)
    steps = -(-len(images) // config.batch_size)
    optimizer = make_optimizer(config, steps)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)
    # XLA on a CPU convolves many times slower than TensorFlow's own kernels.
    jit = keras.backend.backend() == "jax"
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"], jit_compile=jit)
    optimizer.build(model.trainable_variables)
    recorder = Recorder(core, data.public_test, config, folder)
    recorder.set_model(model)
    epochs_done = recorder.restore()
    stopped = config.patience and epochs_done and epochs_done - 1 - recorder.best_epoch >= config.patience
    if epochs_done < config.epochs and not stopped:
        stream = batches(images, targets, config, epochs_done)
        model.fit(stream, steps_per_epoch=steps, epochs=config.epochs, initial_epoch=epochs_done, verbose=verbose, shuffle=False,
                  callbacks=[recorder, *callbacks])  # fmt: skip
    return recorder


def _record(config, data: FER2013, removed: list[dict], best: keras.Model, recorder: Recorder, folder: Path) -> dict:
    metrics = {}
    for name, split in (("public_test", data.public_test), ("private_test", data.private_test)):
        probabilities = predict(best, split.images)
        np.save(folder / f"{name}.npy", probabilities)
        metrics[name] = evaluate(split.labels, probabilities)
    reasons = [row["reason"] for row in removed]
    return {
        "name": config.name,
        "config": config.to_dict(),
        "labels": list(EMOTIONS),
        "input": "grey levels 0..255, shape (n, 48, 48, 1)",
        "protocol": "fitted on Training; epoch chosen on PublicTest; PrivateTest scored once, after that",
        "metrics": metrics,
        "best_epoch": int(recorder.best_epoch) + 1,
        "parameters": int(best.count_params()),
        "minutes": round(recorder.seconds / 60, 1),
        "data": {
            "checksum": data.checksum,
            "training_rows": len(data.training),
            "removed": {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
            "notes": list(data.notes),
        },
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "numpy": np.__version__,
            "backend": keras.backend.backend(),
        },
    }


def git_commit() -> str | None:
    """Returns the commit that is checked out, with "+" when files differ from it; None outside a repository."""
    root = Path(__file__).resolve().parent.parent
    try:
        run = {"cwd": root, "capture_output": True, "text": True, "check": True, "timeout": 10}
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **run).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **run).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.training --help`."""
    parser = argparse.ArgumentParser(description="Train one network on FER-2013; run the same command again to resume.")
    parser.add_argument("--config", type=Path, help="JSON file of TrainingConfig settings, e.g. a run's config.json")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings that win over the file's, in JSON")
    parser.add_argument("--data", type=Path, help="data set (default: looked for as emotion.dataset does)")
    parser.add_argument("--run-dir", type=Path, help="folder of the run (default: saved_models/runs/<name>)")
    options = parser.parse_args(arguments)
    settings = json.loads(options.config.read_text(encoding="utf-8")) if options.config else {}
    for item in options.set:
        name, _, value = item.partition("=")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    if "name" not in settings:
        parser.error("a run needs a name: --set name=my_run")
    data = load_fer2013(options.data)
    cleaning.check_official(data)
    record = train(TrainingConfig.from_dict(settings), data, options.run_dir)
    for part, result in record["metrics"].items():
        accuracy = result["accuracy"]
        print(f"{part}: {accuracy['value']:.2%} ({accuracy['low']:.2%} to {accuracy['high']:.2%})")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
