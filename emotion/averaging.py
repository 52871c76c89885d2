"""Makes one network of several runs of the same kind by averaging their weights.

    python -m emotion.averaging mobilenet_faces_long mobilenet_faces_long_again --name mobilenet_faces_averaged

Runs that went on from one another end near each other in the same valley of the loss. The point between them lies deeper in it,
as a rule, and costs the time of one network where a committee costs that of all. The mean of the weights has no use for the mean
of the statistics, so batch normalisation is recalibrated (`emotion.recalibration`). Runs from unlike beginnings lie in valleys of
their own, and their mean knows nothing. Nor have the hidden units of two heads a common order, since each run starts with a new
head: such a head is the first run's. One dense layer, which has none, is averaged. The result is a run like any other.
Sources: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization"; Wortsman et al. 2022, "Model
soups".

Keras and NumPy only.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from emotion import cleaning
from emotion.dataset import FER2013, load_fer2013
from emotion.recalibration import PICTURES, recalibrate
from emotion.training import RUNS, derive_run, finished_run, on_public_test, protocol
from emotion.training_config import TrainingConfig
from emotion.transfer import body_layers


def make_run(names: list[str], name: str, data: FER2013, runs: Path = RUNS) -> dict:
    """Makes the run of an averaged network, and scores it.

    Args:
        names: of two or more finished runs of one architecture, which must still have their best.keras. A head with hidden units
            is the first one's.
        name: of the new run.
        data: as loaded; the pictures for the statistics are drawn from Training as it is left by `cleaning`.
        runs: the folder that holds the runs' folders.

    Returns:
        The record that was written.

    Raises:
        FileNotFoundError: a run lacks its record or its weights.
        ValueError: fewer than two runs, unlike networks, no batch normalisation, no global average pooling, or the folder holds a
            run with other settings.
    """
    found = [finished_run(runs, origin) for origin in names]
    shapes = [[weight.shape for weight in model.get_weights()] for _, model in found]
    if len(names) < 2 or any(model.name != found[0][1].name for _, model in found) or any(s != shapes[0] for s in shapes):
        kinds = ", ".join(f"{origin} ({model.name})" for origin, (_, model) in zip(names, found, strict=True))
        raise ValueError(f"two or more runs of one kind of network must be given. Received: {kinds}")
    record, model = found[-1]
    model.set_weights(_mean([other for _, other in found]))
    images = cleaning.clean(data)[0].training.images
    recalibrate(model, images[np.random.default_rng(0).permutation(len(images))[:PICTURES]])
    config = TrainingConfig.from_dict(record["config"])
    head = f", the head of {names[0]}" if _has_hidden_units(model) else ""
    note = f"The mean of the weights of {' and '.join(names)}{head}, its batch normalisation recalibrated."
    return derive_run(
        model,
        replace(config, name=name, note=note),
        data,
        runs / name,
        record,
        averaged=names,
        protocol=f"members {protocol(config)}",
        minutes=round(sum(record["minutes"] for record, _ in found), 1),
    )


def _mean(models: list[keras.Model]) -> list[np.ndarray]:
    values = [np.mean(parts, axis=0) for parts in zip(*(model.get_weights() for model in models), strict=True)]
    if _has_hidden_units(models[0]):
        body = {id(variable) for layer in body_layers(models[0]) for variable in layer.weights}
        own = [id(variable) not in body for variable in models[0].weights]
        values = [w if of_head else v for v, w, of_head in zip(values, models[0].get_weights(), own, strict=True)]
    return values


def _has_hidden_units(model: keras.Model) -> bool:
    head = model.layers[len(body_layers(model)) :]
    return sum(isinstance(layer, keras.layers.Dense) for layer in head) > 1


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.averaging --help`."""
    parser = argparse.ArgumentParser(description="Make one network, and one run, of the mean of several runs' weights.")
    parser.add_argument("runs", nargs="+", help="names of finished runs that still have their best.keras")
    parser.add_argument("--name", required=True, help="of the new run")
    parser.add_argument("--data", type=Path, help="data set (default: looked for as emotion.dataset does)")
    options = parser.parse_args(arguments)
    data = load_fer2013(options.data)
    cleaning.check_official(data)
    print(on_public_test(make_run(options.runs, options.name, data)))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
