"""Makes one network of several trained ones: `python -m emotion.committee vgg_small vgg_small_taught --name vgg_small_pair`.

Its answer is the mean of the members' logits, which is better than most members' and often than the best. The result is a run
like any other, with a record, probabilities and best.keras, so it is compared, exported and taught from as any other.

Keras and NumPy only.
"""

import argparse
import os
from pathlib import Path

import keras
import numpy as np

from emotion import cleaning
from emotion.architectures import build
from emotion.dataset import FER2013, load_fer2013
from emotion.training import RUNS, derive_run, finished_run
from emotion.training_config import TrainingConfig


def as_one_network(models: list[keras.Model], configs: list[TrainingConfig]) -> tuple[keras.Model, dict]:
    """Returns a network whose logits are the mean of several networks', and its `architectures.committee` options.

    Args:
        models: of kinds that end in global average pooling and a dense layer, such as `vgg` and `se_resnet`.
        configs: of their runs.
    """
    members = [{"architecture": config.architecture, "options": config.architecture_options} for config in configs]
    options = {"members": members}
    together = build("committee", options)
    heads = [model.get_layer("probabilities").get_weights() for model in models]
    for number, model in enumerate(models):
        together.get_layer(f"member_{number}").set_weights(model.get_weights()[: -len(heads[number])])
    kernel, bias = np.concatenate([kernel for kernel, _ in heads]), np.sum([bias for _, bias in heads], axis=0)
    together.get_layer("probabilities").set_weights([kernel / len(models), bias / len(models)])
    return together, options


def make_run(names: list[str], name: str, data: FER2013, runs: Path = RUNS) -> dict:
    """Makes the run of a committee from its members' runs, and scores it.

    Args:
        names: of the members' runs, which must still have their best.keras.
        name: of the new run.
        data: as loaded.
        runs: the folder that holds the runs' folders.

    Returns:
        The record that was written.

    Raises:
        FileNotFoundError: a member lacks its record or its weights.
        ValueError: a member has no last map to put beside the others', or the folder holds a run with other settings.
    """
    found = [finished_run(runs, member) for member in names]
    records, models = [record for record, _ in found], [model for _, model in found]
    network, options = as_one_network(models, [TrainingConfig.from_dict(record["config"]) for record in records])
    note = f"The mean of {' and '.join(names)}, as one network."
    config = TrainingConfig(name, architecture="committee", architecture_options=options, note=note)
    return derive_run(
        network,
        config,
        data,
        runs / name,
        {key: value for key, value in records[0].items() if key not in ("body", "recalibrated")},
        members=names,
        protocol="members fitted on Training and chosen on PublicTest; PrivateTest scored once, after that",
        minutes=round(sum(record["minutes"] for record in records), 1),
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.committee --help`."""
    parser = argparse.ArgumentParser(description="Make one network, and one run, of several trained ones.")
    parser.add_argument("members", nargs="+", help="names of finished runs that still have their best.keras")
    parser.add_argument("--name", required=True, help="of the new run")
    parser.add_argument("--data", type=Path, help="data set (default: looked for as emotion.dataset does)")
    options = parser.parse_args(arguments)
    data = load_fer2013(options.data)
    cleaning.check_official(data)
    record = make_run(options.members, options.name, data)
    accuracy = record["metrics"]["public_test"]["accuracy"]
    print(f"PublicTest {accuracy['value']:.2%} ({accuracy['low']:.2%} to {accuracy['high']:.2%})")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
