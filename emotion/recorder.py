"""Keeps a run's history, best weights and checkpoint, epoch by epoch."""

import csv
import time
from pathlib import Path

import keras
import numpy as np

from emotion.dataset import Split
from emotion.recalibration import normalizations, recalibrate
from emotion.training_config import TrainingConfig

HISTORY_COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns float32 (n, classes) probabilities of uint8 (n, 48, 48) pictures, or whatever else the model answers of each."""
    x = images.astype(np.float32)[..., None]
    return np.asarray(model.predict(x, batch_size=512, verbose=0), dtype=np.float32)


def _loss_and_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, 1e-7)).mean()), float((probabilities.argmax(axis=1) == labels).mean())


class Recorder(keras.callbacks.Callback):
    """After each epoch: scores the validation pictures, appends to history.csv, keeps the best weights, writes the checkpoint.

    Args:
        core: the network itself, without augmentation.
        whole: the core and all that wraps it; the checkpoint holds its variables, whichever part of it is being fitted.
        validation: pictures that choose the epoch: PublicTest, where FER-2013 is learned.
        config: ema, recalibrate, patience, keep and stages are used.
        folder: of the run.
        pictures: uint8 (n, 48, 48) to recalibrate on, where the config says so.
    """

    def __init__(
        self, core: keras.Model, whole: keras.Model, validation: Split, config: TrainingConfig, folder: Path,
        pictures: np.ndarray | None = None,
    ):  # fmt: skip
        super().__init__()
        self.core, self.whole, self.validation, self.config, self.folder = core, whole, validation, config, folder
        self.pictures = pictures
        self.best, self.best_epoch, self.best_weights, self.seconds = -1.0, -1, None, 0.0
        self.stage, self.saved_stage, self.saved_optimizer, self.raw = 0, -1, [], None

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        raw, statistics = self._swap_in_average(), self._recalibrate()
        probabilities = predict(self.core, self.validation.images)
        logs["val_loss"], logs["val_accuracy"] = _loss_and_accuracy(self.validation.labels, probabilities)
        if logs["val_accuracy"] > self.best or self.config.keep == "last":
            self.best, self.best_epoch = logs["val_accuracy"], epoch
            self.best_weights = [keras.ops.convert_to_numpy(v) for v in self.core.weights]
        self.raw = raw
        self._put_back_raw()
        for variable, value in statistics:
            variable.assign(value)
        seconds = time.perf_counter() - self.started
        self.seconds += seconds
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1, **{k: f"{logs[k]:.6f}" for k in HISTORY_COLUMNS[1:5]},
               "learning_rate": f"{rate:.6g}", "seconds": f"{seconds:.1f}"}  # fmt: skip
        with (self.folder / "history.csv").open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, HISTORY_COLUMNS).writerow(row)
        self.save(epoch + 1)
        if self.out_of_patience(epoch + 1):
            self.model.stop_training = True

    def out_of_patience(self, epochs_done: int) -> bool:
        """Whether the last stage has gone on for `patience` epochs without a better one."""
        start = self.config.spans()[-1][0]
        return bool(self.config.patience) and epochs_done - max(self.best_epoch + 1, start) >= self.config.patience

    def on_train_end(self, logs=None):
        # Keras leaves the averages in the model when fit ends; the next stage is to go on from what the checkpoint holds.
        self._put_back_raw()

    def _put_back_raw(self) -> None:
        if self.raw is not None:
            for variable, value in zip(self.model.trainable_variables, self.raw, strict=True):
                variable.assign(value)

    def _swap_in_average(self):
        """Puts the averaged weights into the model and returns the raw ones; None where no average is kept."""
        if not self.config.ema:
            return None
        raw = [np.array(v) for v in self.model.trainable_variables]
        # Keras has no public access to these; its own SwapEMAWeights callback reads the same attribute.
        averages = self.model.optimizer._model_variables_moving_average
        for variable, average in zip(self.model.trainable_variables, averages, strict=True):
            # A copy: under JAX the two would otherwise share one buffer, which the next step gives away.
            variable.assign(np.array(average))
        return raw

    def _recalibrate(self) -> list[tuple]:
        """Gives the network statistics of unchanged pictures and returns those that it is to be fitted on with."""
        if not self.config.recalibrate:
            return []
        moving = [v for layer in normalizations(self.core) for v in (layer.moving_mean, layer.moving_variance)]
        kept = [(variable, np.array(variable)) for variable in moving]
        recalibrate(self.core, self.pictures)
        return kept

    def save(self, epochs_done: int) -> None:
        """Writes the checkpoint beside its place and renames it, so that a kill leaves the former one whole."""
        arrays = {f"model_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(self.whole.variables)}
        arrays |= {f"optimizer_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(self.model.optimizer.variables)}
        arrays |= {f"best_{i}": v for i, v in enumerate(self.best_weights)}
        state = np.array([epochs_done, self.best, self.best_epoch, self.seconds])
        part = self.folder / "checkpoint.part.npz"
        np.savez(part, state=state, stage=self.stage, **arrays)
        part.replace(self.folder / "checkpoint.npz")

    def restore(self) -> int:
        """Loads the checkpoint, cuts history.csv to it, and returns the number of epochs done (0 without one).

        The optimizer's part waits for `enter`: each stage has an optimizer of its own.
        """
        path = self.folder / "checkpoint.npz"
        lines = [",".join(HISTORY_COLUMNS)]
        epochs_done = 0
        if path.is_file():
            with np.load(path) as arrays:
                epochs_done, self.best, self.best_epoch, self.seconds = arrays["state"].tolist()
                for i, variable in enumerate(self.whole.variables):
                    variable.assign(arrays[f"model_{i}"])
                count = sum(name.startswith("optimizer_") for name in arrays.files)
                self.saved_optimizer = [arrays[f"optimizer_{i}"] for i in range(count)]
                self.saved_stage = int(arrays["stage"]) if "stage" in arrays.files else 0
                self.best_weights = [arrays[f"best_{i}"] for i in range(len(self.core.weights))]
            epochs_done = int(epochs_done)
            lines = (self.folder / "history.csv").read_text(encoding="utf-8").splitlines()[: epochs_done + 1]
        (self.folder / "history.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return epochs_done

    def enter(self, stage: int, fitted: keras.Model) -> None:
        """Notes the stage (0, 1, ...) that begins or goes on and what is fitted in it, the whole or a part.

        Restores the stage's optimizer if the checkpoint was made in it.
        """
        self.stage = stage
        self.set_model(fitted)
        if stage == self.saved_stage:
            for variable, value in zip(self.model.optimizer.variables, self.saved_optimizer, strict=True):
                variable.assign(value)
        self.saved_optimizer = []
