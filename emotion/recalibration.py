"""Gives a finished network's batch normalisation the statistics of faces as it will see them.

    python -m emotion.recalibration vgg_small --name vgg_small_recalibrated

While a network is fitted, each layer's mean and variance are averaged over faces that augmentation has changed, and over weights
that went on changing (or, with `ema`, over other weights than those that are kept). Neither is what it meets afterwards. Here
faces of Training pass through the finished network as they are, and each layer's statistics become the mean over their batches.
No weight is fitted. The result is a run like any other. With `recalibrate` in its settings, a run does this after every epoch.
Sources: Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", sections 3 ("PreciseBN") and 5; Touvron et al. 2019, "Fixing the
train-test resolution discrepancy".

Keras and NumPy only.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from keras import layers

from emotion import cleaning
from emotion.dataset import FER2013, load_fer2013
from emotion.training_config import TrainingConfig

PICTURES = 4096


def normalizations(model: keras.Model) -> list[layers.BatchNormalization]:
    """Returns a network's batch normalisation layers, those of networks inside it included."""
    return [layer for layer in _all_layers(model) if isinstance(layer, layers.BatchNormalization)]


def recalibrate(model: keras.Model, images: np.ndarray, batch_size: int = 64) -> None:
    """Replaces the moving mean and variance of every batch normalisation that is not frozen by those of these pictures.

    Args:
        model: the network; changed in place.
        images: uint8 (n, 48, 48), as they are.
        batch_size: pictures looked at together; a smaller rest is left out.

    Raises:
        ValueError: the network has no batch normalisation, or there is no whole batch.
    """
    norms, batches = normalizations(model), len(images) // batch_size
    drops = [layer for layer in _all_layers(model) if isinstance(layer, layers.Dropout)]
    if not norms or not batches:
        rule = f"a network must have batch normalisation, and there must be {batch_size} pictures or more"
        raise ValueError(f"{rule}. Received: {model.name} with {len(norms)} such layers, {len(images)} pictures")
    momenta, rates = [layer.momentum for layer in norms], [layer.rate for layer in drops]
    try:
        for layer in drops:
            layer.rate = 0.0  # it would widen the variance of all that follows
        for batch in range(batches):
            for layer in norms:
                layer.momentum = batch / (batch + 1)  # the mean of equals, not one that forgets
            model(images[batch * batch_size :][:batch_size].astype(np.float32)[..., None], training=True)
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
        for layer, rate in zip(drops, rates, strict=True):
            layer.rate = rate


def _all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield from _all_layers(layer) if isinstance(layer, keras.Model) else [layer]


def make_run(origin: str, name: str, data: FER2013, runs: Path | None = None) -> dict:
    """Makes the run of a recalibrated network, and scores it.

    Args:
        origin: name of a finished run, which must still have its best.keras.
        name: of the new run.
        data: as loaded; the pictures are drawn from Training as it is left by `cleaning`.
        runs: the folder that holds the runs' folders; None is saved_models/runs.

    Returns:
        The record that was written.

    Raises:
        FileNotFoundError: the run lacks its record or its weights.
        ValueError: its network has no batch normalisation, or the folder holds a run with other settings.
    """
    from emotion.training import RUNS, derive_run, finished_run  # only here: training itself recalibrates

    runs = runs or RUNS
    record, model = finished_run(runs, origin)
    config = TrainingConfig.from_dict(record["config"])
    images = (cleaning.clean(data)[0] if config.clean else data).training.images
    chosen = np.random.default_rng(0).permutation(len(images))[:PICTURES]
    recalibrate(model, images[chosen])
    note = f"{origin}, its batch normalisation recalibrated on {len(chosen):,} faces as they are."
    return derive_run(model, replace(config, name=name, note=note), data, runs / name, record, recalibrated=origin)


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.recalibration --help`."""
    parser = argparse.ArgumentParser(description="Make a run of a finished one by recalibrating its batch normalisation.")
    parser.add_argument("run", help="name of a finished run that still has its best.keras")
    parser.add_argument("--name", help="of the new run (default: the run's, with _recalibrated behind it)")
    parser.add_argument("--data", type=Path, help="data set (default: looked for as emotion.dataset does)")
    options = parser.parse_args(arguments)
    from emotion.training import on_public_test

    data = load_fer2013(options.data)
    cleaning.check_official(data)
    record = make_run(options.run, options.name or f"{options.run}_recalibrated", data)
    print(on_public_test(record))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
