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
import csv
import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import keras
import numpy as np

from emotion import cleaning
from emotion.architectures import build
from emotion.augmentation import NONE, Augmentation, RandomAugment
from emotion.dataset import FER2013, load_fer2013
from emotion.evaluation import evaluate
from emotion.labels import EMOTIONS

RUNS = Path(__file__).resolve().parent.parent / "saved_models" / "runs"
HISTORY_COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


@dataclass(frozen=True)
class TrainingConfig:
    """All settings of a run; a run is reproducible from these, the data and the versions in its record.

    Attributes:
        name: folder of the run.
        architecture, architecture_options: key of `architectures.BUILDERS` and its keyword arguments.
        epochs, batch_size: as usual.
        optimizer: "adam" or "sgd" (Nesterov momentum 0.9).
        learning_rate: the peak.
        schedule: "constant", "cosine" (to zero), or "step" (x 0.1 at half and at three quarters).
        warmup_epochs: linear rise to the peak.
        weight_decay: decoupled, per step times the learning rate, on kernels only.
        label_smoothing: 0..1.
        ema: momentum of the weights' exponential moving average, which is then what is evaluated and kept; 0 is off.
        augmentation: see `Augmentation`.
        mixup: alpha of the Beta distribution (Zhang et al. 2018); 0 is off.
        label_share: 1 fits the labels; below 1 blends in FER+ votes (Training rows only).
        clean: whether `cleaning.clean` is applied to Training.
        balance: "none", "class_weight" or "sampling".
        patience: epochs without a better PublicTest accuracy before stopping; 0 never stops early.
        precision: Keras policy for the arithmetic, "float32" or "mixed_bfloat16". Weights are always kept in float32.
        seed: of initial weights, shuffling, augmentation and dropout.
        note: why this run exists, one sentence for the reader of the record.
    """

    name: str
    architecture: str = "custom_cnn"
    architecture_options: dict = field(default_factory=dict)
    epochs: int = 30
    batch_size: int = 64
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_epochs: int = 0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    augmentation: Augmentation = NONE
    mixup: float = 0.0
    label_share: float = 1.0
    clean: bool = True
    balance: str = "none"
    patience: int = 0
    precision: str = "float32"
    seed: int = 0
    note: str = ""

    def __post_init__(self):
        if isinstance(self.augmentation, dict):
            object.__setattr__(self, "augmentation", Augmentation(**self.augmentation))
        choices = {"optimizer": ("adam", "sgd"), "schedule": ("constant", "cosine", "step"),
                   "balance": ("none", "class_weight", "sampling"), "precision": ("float32", "mixed_bfloat16")}  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}. Received: {getattr(self, name)!r}")
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive. Received: {getattr(self, name)}")
        for name in ("ema", "label_smoothing", "label_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1. Received: {getattr(self, name)}")

        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"warmup_epochs must be below epochs. Received: {self.warmup_epochs} of {self.epochs}")

    @classmethod
    def from_dict(cls, settings: dict) -> "TrainingConfig":
        """Builds a config from JSON; raises ValueError naming settings that do not exist."""
        unknown = set(settings) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"settings must be fields of TrainingConfig. Unknown: {', '.join(sorted(unknown))}")
        return cls(**settings)

    def to_dict(self) -> dict:
        """Returns the settings as JSON-ready values."""
        return asdict(self)


def batches(images: np.ndarray, targets: np.ndarray, config: TrainingConfig, first_epoch: int = 0):
    """Yields shuffled batches without end, epoch after epoch.

    What an epoch yields is a function of (seed, epoch) alone, so that a resumed run sees what it would have seen. (A
    `keras.utils.PyDataset` would not do: `fit` shuffles its batches by an order of its own and calls its hooks once too often.)

    Args:
        images: uint8 (n, 48, 48).
        targets: float32 (n, 7), rows sum to 1.
        config: batch size, balance, mixup and seed are used.
        first_epoch: where to begin, from 0.

    Yields:
        (x, y) or, with class weights, (x, y, sample weights): x float32 (batch, 48, 48, 1) grey levels. The last batch of an epoch
        is filled up from its beginning, so that every step has one shape and JAX compiles once.
    """
    labels, size, epoch = targets.argmax(axis=1), config.batch_size, first_epoch
    weights = cleaning.class_weights(labels) if config.balance == "class_weight" else None
    while True:
        rng = np.random.default_rng((config.seed, epoch))
        order = cleaning.balanced_indices(labels, rng) if config.balance == "sampling" else rng.permutation(len(labels))
        for start in range(0, len(order), size):
            chosen = np.take(order, np.arange(start, start + size), mode="wrap")
            x, y = images[chosen].astype(np.float32)[..., None], targets[chosen]
            if config.mixup:
                x, y = mix(x, y, rng.beta(config.mixup, config.mixup), rng.permutation(size))
            yield (x, y) if weights is None else (x, y, weights[labels[chosen]])
        epoch += 1


def mix(x: np.ndarray, y: np.ndarray, share: float, partner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blends each picture and its target with a partner's: share x own + (1 - share) x partner's, float32."""
    share = np.float32(share)
    return share * x + (1 - share) * x[partner], share * y + (1 - share) * y[partner]


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


class Recorder(keras.callbacks.Callback):
    """After each epoch: scores PublicTest, appends to history.csv, keeps the best weights, writes the checkpoint."""

    def __init__(self, core: keras.Model, data: FER2013, config: TrainingConfig, folder: Path):
        super().__init__()
        self.core, self.data, self.config, self.folder = core, data, config, folder
        self.best, self.best_epoch, self.best_weights, self.seconds = -1.0, -1, None, 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        raw = self._swap_in_average()
        probabilities = predict(self.core, self.data.public_test.images)
        logs["val_loss"], logs["val_accuracy"] = _loss_and_accuracy(self.data.public_test.labels, probabilities)
        if logs["val_accuracy"] > self.best:
            self.best, self.best_epoch = logs["val_accuracy"], epoch
            self.best_weights = [keras.ops.convert_to_numpy(v) for v in self.core.weights]
        if raw is not None:
            for variable, value in zip(self.model.trainable_variables, raw, strict=True):
                variable.assign(value)
        seconds = time.perf_counter() - self.started
        self.seconds += seconds
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1, **{k: f"{logs[k]:.6f}" for k in HISTORY_COLUMNS[1:5]},
               "learning_rate": f"{rate:.6g}", "seconds": f"{seconds:.1f}"}  # fmt: skip
        with (self.folder / "history.csv").open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, HISTORY_COLUMNS).writerow(row)
        self.save(epoch + 1)
        if self.config.patience and epoch - self.best_epoch >= self.config.patience:
            self.model.stop_training = True

    def _swap_in_average(self):
        """Puts the averaged weights into the model and returns the raw ones; None where no average is kept."""
        if not self.config.ema:
            return None
        raw = [np.array(v) for v in self.model.trainable_variables]
        # Keras has no public access to these; its own SwapEMAWeights callback reads the same attribute.
        for variable, average in zip(self.model.trainable_variables, self.model.optimizer._model_variables_moving_average, strict=True):
            # A copy: under JAX the two would otherwise share one buffer, which the next step gives away.
            variable.assign(np.array(average))
        return raw

    def save(self, epochs_done: int) -> None:
        """Writes the checkpoint beside its place and renames it, so that a kill leaves the former one whole."""
        arrays = {f"model_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(self.model.variables)}
        arrays |= {f"optimizer_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(self.model.optimizer.variables)}
        arrays |= {f"best_{i}": v for i, v in enumerate(self.best_weights)}
        state = np.array([epochs_done, self.best, self.best_epoch, self.seconds])
        part = self.folder / "checkpoint.part.npz"
        np.savez(part, state=state, **arrays)
        part.replace(self.folder / "checkpoint.npz")

    def restore(self) -> int:
        """Loads the checkpoint, cuts history.csv to it, and returns the number of epochs done (0 without one)."""
        path = self.folder / "checkpoint.npz"
        lines = [",".join(HISTORY_COLUMNS)]
        epochs_done = 0
        if path.is_file():
            with np.load(path) as arrays:
                epochs_done, self.best, self.best_epoch, self.seconds = arrays["state"].tolist()
                for prefix, variables in (("model", self.model.variables), ("optimizer", self.model.optimizer.variables)):
                    for i, variable in enumerate(variables):
                        variable.assign(arrays[f"{prefix}_{i}"])
                self.best_weights = [arrays[f"best_{i}"] for i in range(len(self.core.weights))]
            epochs_done = int(epochs_done)
            lines = (self.folder / "history.csv").read_text(encoding="utf-8").splitlines()[: epochs_done + 1]
        (self.folder / "history.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return epochs_done


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
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    try:
        core, recorder = _fit(config, fitted, folder, verbose)
    finally:
        keras.config.set_dtype_policy("float32")
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
        raise ValueError(f"a run's folder must keep its settings; choose another name or delete it. Received: {folder} with other settings")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _fit(config: TrainingConfig, data: FER2013, folder: Path, verbose) -> tuple[keras.Model, Recorder]:
    core = build(config.architecture, config.architecture_options)
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
    recorder = Recorder(core, data, config, folder)
    recorder.set_model(model)
    epochs_done = recorder.restore()
    stopped = config.patience and epochs_done and epochs_done - 1 - recorder.best_epoch >= config.patience
    if epochs_done < config.epochs and not stopped:
        stream = batches(images, targets, config, epochs_done)
        model.fit(stream, steps_per_epoch=steps, epochs=config.epochs, initial_epoch=epochs_done, callbacks=[recorder],
                  verbose=verbose, shuffle=False)  # fmt: skip
    return core, recorder


def predict(model: keras.Model, images: np.ndarray, flip: bool = False) -> np.ndarray:
    """Returns float32 (n, 7) probabilities of uint8 (n, 48, 48) pictures; `flip` averages with the mirrored pictures."""
    x = images.astype(np.float32)[..., None]
    probabilities = np.asarray(model.predict(x, batch_size=512, verbose=0), dtype=np.float32)
    if flip:
        probabilities = (probabilities + np.asarray(model.predict(x[:, :, ::-1], batch_size=512, verbose=0))) / 2
    return probabilities


def _loss_and_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, 1e-7)).mean()), float((probabilities.argmax(axis=1) == labels).mean())


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
        "data": {"checksum": data.checksum, "training_rows": len(data.training), "notes": list(data.notes),
                 "removed": {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}},  # fmt: skip
        "versions": {"python": platform.python_version(), "keras": keras.__version__, "numpy": np.__version__,
                     "backend": keras.backend.backend()},  # fmt: skip
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
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings that win over the file's; values in JSON")
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
    record = train(TrainingConfig.from_dict(settings), load_fer2013(options.data), options.run_dir)
    for part, result in record["metrics"].items():
        accuracy = result["accuracy"]
        print(f"{part}: {accuracy['value']:.2%} ({accuracy['low']:.2%} to {accuracy['high']:.2%})")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
