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
from pathlib import Path

import keras
import numpy as np

from emotion import cleaning, opinions
from emotion.dataset import FER2013, Split, load_fer2013
from emotion.evaluation import evaluate
from emotion.fitting import claim, fit
from emotion.framing import framed
from emotion.labels import EMOTIONS
from emotion.recorder import HISTORY_COLUMNS, Recorder, predict
from emotion.training_config import TrainingConfig, parse_settings
from emotion.transfer import body_checksum
from emotion.vote_head import vote_shares

__all__ = ["RUNS", "TrainingConfig", "git_commit", "main", "predict", "train", "versions"]

RUNS = Path(__file__).resolve().parent.parent / "saved_models" / "runs"


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
    claim(folder, config)
    if (folder / "record.json").is_file():
        return json.loads((folder / "record.json").read_text(encoding="utf-8"))
    commit = git_commit()
    fitted, removed = cleaning.clean(data) if config.clean else (data, [])
    images, targets = fitted.training.images, _targets(config, fitted.training)
    also = framed(images) if config.framed or config.distillation.views else None
    if config.refit:
        more = cleaning.refittable(data)
        blank = np.zeros((len(more), targets.shape[1] - len(EMOTIONS)), np.float32)  # no votes, no loss of theirs
        images = np.concatenate([images, more.images])
        targets = np.concatenate([targets, np.concatenate([cleaning.one_hot(more.labels), blank], axis=1)])
        also = None if also is None else np.concatenate([also, framed(more.images)])
    best, recorder = fit(config, images, targets, fitted.public_test, folder, verbose, framed=also)
    best.save(folder / "best.keras")
    record = {**_record(config, fitted, removed, best, recorder, folder), "git_commit": commit}
    (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (folder / "checkpoint.npz").unlink(missing_ok=True)
    return record


def _targets(config: TrainingConfig, training: Split) -> np.ndarray:
    if config.opinions:
        targets = opinions.blend(training, config.opinions, config.label_share)
    else:
        targets = cleaning.soft_targets(training, config.label_share)
    return np.concatenate([targets, vote_shares(training)], axis=1) if config.vote_head else targets


def _record(config, data: FER2013, removed: list[dict], best: keras.Model, recorder: Recorder, folder: Path) -> dict:
    metrics = _score(best, data, folder, config)
    reasons, weights = [row["reason"] for row in removed], config.architecture_options.get("weights")
    return {
        "name": config.name,
        "config": config.to_dict(),
        "labels": list(EMOTIONS),
        "input": "grey levels 0..255, shape (n, 48, 48, 1)",
        "protocol": protocol(config),
        "metrics": metrics,
        "best_epoch": int(recorder.best_epoch) + 1,
        "parameters": int(best.count_params()),
        "minutes": round(recorder.seconds / 60, 1),
        "data": {
            "checksum": data.checksum,
            "training_rows": len(data.training),
            **({"public_test_rows": len(cleaning.refittable(data))} if config.refit else {}),
            "removed": {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
            "notes": list(data.notes),
        },
        **({"body": {"file": weights, "sha256": body_checksum(weights)}} if body_checksum(weights) else {}),
        "versions": versions(),
    }


def protocol(config: TrainingConfig) -> str:
    """Says in a record which part of FER-2013 did what."""
    if config.refit:
        return "fitted on Training and PublicTest, by the settings of a run judged on PublicTest; PrivateTest scored once"
    if config.keep == "last":
        return "fitted on Training; last epoch kept; PrivateTest scored once"
    return "fitted on Training; epoch chosen on PublicTest; PrivateTest scored once, after that"


def _score(model: keras.Model, data: FER2013, folder: Path, config: TrainingConfig) -> dict:
    """PublicTest tells nothing of a network that was fitted on it, so a refit has no score there."""
    metrics, tests = {}, {"public_test": data.public_test, "private_test": data.private_test}
    for name, split in tests.items():
        if config.refit and name == "public_test":
            continue
        probabilities = predict(model, split.images)
        np.save(folder / f"{name}.npy", probabilities)
        metrics[name] = evaluate(split.labels, probabilities)
    return metrics


def on_public_test(record: dict) -> str:
    """Says for a terminal how a run did on PublicTest."""
    if "public_test" not in record["metrics"]:
        return "no score on PublicTest, which was fitted"
    accuracy = record["metrics"]["public_test"]["accuracy"]
    return f"PublicTest {accuracy['value']:.2%} ({accuracy['low']:.2%} to {accuracy['high']:.2%})"


def finished_run(runs: Path, name: str) -> tuple[dict, keras.Model]:
    """Returns the record and the network of a run.

    Raises:
        FileNotFoundError: the record or best.keras is missing.
    """
    folder = runs / name
    if not ((folder / "record.json").is_file() and (folder / "best.keras").is_file()):
        raise FileNotFoundError(f"a run must be finished and still have its best.keras. Found none of: {name}")
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return record, keras.saving.load_model(folder / "best.keras", compile=False)


def derive_run(model: keras.Model, config: TrainingConfig, data: FER2013, folder: Path, origin: dict, **more) -> dict:
    """Makes a run of a network that was not fitted but made of finished ones, and scores it.

    Args:
        model: the network.
        config: its name, architecture and note; the rest says nothing.
        data: as loaded.
        folder: of the new run.
        origin: record of the run that it was made of; what `more` does not replace stays.
        more: entries of the new record.

    Returns:
        The record that was written.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    commit = git_commit()
    claim(folder, config)
    model.save(folder / "best.keras")
    (folder / "history.csv").write_text(",".join(HISTORY_COLUMNS) + "\n", encoding="utf-8")
    record = origin | {
        "name": config.name,
        "config": config.to_dict(),
        "metrics": _score(model, data, folder, config),
        "best_epoch": None,
        "parameters": int(model.count_params()),
        "versions": versions(),
        "git_commit": commit,
        **more,
    }
    (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def versions() -> dict[str, str]:
    """Returns the versions of what computes a run."""
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "numpy": np.__version__,
        "backend": keras.backend.backend(),
    }


def git_commit() -> str | None:
    """Returns the commit that is checked out, with "+" when files differ from it.

    Outside a repository, as on a machine that was sent the files alone, it is what the environment's GIT_COMMIT says, or None.
    """
    root = Path(__file__).resolve().parent.parent
    try:
        run = {"cwd": root, "capture_output": True, "text": True, "check": True, "timeout": 10}
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **run).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **run).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("GIT_COMMIT")
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
    settings |= parse_settings(options.set)
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
