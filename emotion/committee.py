"""Makes one network of several trained ones: `python -m emotion.committee vgg_small vgg_small_taught --name vgg_small_pair`.

Its answer is the mean of the members' logits, which is better than most members' and often than the best; `--shares 1 2` counts
the second twice as much as the first. The result is a run
like any other, with a record, probabilities and best.keras, so it is compared, exported and taught from as any other.

Weights of runs are not kept with the code, but those of the members of what ships are in its file, and can be taken out to go on
from, all but their biases, of which the file holds the mean:

    python -m emotion.committee --split saved_models/emotion_model.keras

Keras and NumPy only.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from emotion import cleaning
from emotion.architectures import build
from emotion.dataset import FER2013, load_fer2013
from emotion.training import RUNS, derive_run, finished_run, on_public_test
from emotion.training_config import TrainingConfig


def as_one_network(
    models: list[keras.Model], configs: list[TrainingConfig], shares: Sequence[float] = ()
) -> tuple[keras.Model, dict]:
    """Returns a network whose logits are the mean of several networks', and its `architectures.committee` options.

    Args:
        models: of kinds that end in global average pooling and a dense layer, such as `vgg` and `se_resnet`.
        configs: of their runs.
        shares: how much each counts, in any unit; none is all alike.

    Raises:
        ValueError: shares that are not positive or not one for each.
    """
    if shares and (len(shares) != len(models) or min(shares) <= 0):
        raise ValueError(f"shares must be positive, one for each of {len(models)} members. Received: {list(shares)}")
    members = [{"architecture": config.architecture, "options": config.architecture_options} for config in configs]
    if shares:
        members = [member | {"share": share / sum(shares)} for member, share in zip(members, shares, strict=True)]
    options = {"members": members}
    together = build("committee", options)
    heads = [model.get_layer("probabilities").get_weights() for model in models]
    for number, model in enumerate(models):
        together.get_layer(f"member_{number}").set_weights(model.get_weights()[: -len(heads[number])])
    parts = [member.get("share", 1 / len(models)) for member in members]
    kernel = np.concatenate([part * kernel for part, (kernel, _) in zip(parts, heads, strict=True)])
    bias = np.sum([part * bias for part, (_, bias) in zip(parts, heads, strict=True)], axis=0)
    together.get_layer("probabilities").set_weights([kernel, bias])
    return together, options


def members(network: keras.Model, options: dict) -> list[keras.Model]:
    """Takes a committee apart.

    Args:
        network: as `as_one_network` makes it, or with several looks at each face (`emotion.looks`).
        options: its `architectures.committee` options.

    Returns:
        Its members, whose mean it is. Each has the mean of all biases, since its own is not known any more.

    Raises:
        ValueError: the network is no committee.
    """
    inner = [layer for layer in network.layers if isinstance(layer, keras.Model) and layer.name == "committee"]
    together = inner[0] if inner else network
    if together.name != "committee":
        raise ValueError(f"only a committee has members. Received: a network named {network.name}")
    kernel, bias = together.layers[-1].get_weights()
    found, start = [], 0
    for number, member in enumerate(options["members"]):
        model = build(member["architecture"], member["options"], pretrained=False)
        width = model.get_layer("probabilities").kernel.shape[0]
        own = kernel[start : start + width] / member.get("share", 1 / len(options["members"]))
        model.set_weights([*together.get_layer(f"member_{number}").get_weights(), own, bias])
        found.append(model)
        start += width
    return found


def restore(path: Path, runs: Path = RUNS) -> list[Path]:
    """Writes best.keras of the members of an exported committee into their runs' folders, where it is missing.

    Args:
        path: of an exported .keras, its record beside it.
        runs: the folder that holds the runs' folders.

    Returns:
        The files that were written.

    Raises:
        FileNotFoundError: the record is missing.
        ValueError: the file is missing or of no committee.
    """
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    names, options = record.get("members", [record["name"]]), record["config"]["architecture_options"]
    written = []
    for name, model in zip(names, members(keras.saving.load_model(path, compile=False), options), strict=True):
        best = runs / name / "best.keras"
        if not best.exists():
            best.parent.mkdir(parents=True, exist_ok=True)
            model.save(best)
            written.append(best)
    return written


def make_run(names: list[str], name: str, data: FER2013, runs: Path = RUNS, shares: Sequence[float] = ()) -> dict:
    """Makes the run of a committee from its members' runs, and scores it.

    Args:
        names: of the members' runs, which must still have their best.keras.
        name: of the new run.
        data: as loaded.
        runs: the folder that holds the runs' folders.
        shares: how much each member counts, in any unit; none is all alike.

    Returns:
        The record that was written.

    Raises:
        FileNotFoundError: a member lacks its record or its weights.
        ValueError: a member has no last map to put beside the others', shares do not fit, or the folder holds a run with other
            settings.
    """
    found = [finished_run(runs, member) for member in names]
    records, models = [record for record, _ in found], [model for _, model in found]
    configs = [TrainingConfig.from_dict(record["config"]) for record in records]
    network, options = as_one_network(models, configs, shares)
    counted = f" in shares of {' to '.join(f'{share:g}' for share in shares)}" if shares else ""
    note = f"The mean of {' and '.join(names)}{counted}, as one network."
    refits = [record for record, config in zip(records, configs, strict=True) if config.refit]
    refit = {"refit": True, "keep": "last"} if refits else {}
    config = TrainingConfig(name, architecture="committee", architecture_options=options, note=note, **refit)
    return derive_run(
        network,
        config,
        data,
        runs / name,
        {key: value for key, value in (refits or records)[0].items() if key not in ("body", "recalibrated", "averaged")},
        members=names,
        protocol=" | ".join(f"{member}: {record['protocol']}" for member, record in zip(names, records, strict=True)),
        minutes=round(sum(record["minutes"] for record in records), 1),
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.committee --help`."""
    parser = argparse.ArgumentParser(description="Make one network, and one run, of several trained ones.")
    parser.add_argument("members", nargs="*", help="names of finished runs that still have their best.keras")
    parser.add_argument("--name", help="of the new run")
    parser.add_argument("--shares", nargs="*", type=float, default=(), help="how much each counts (default: all alike)")
    parser.add_argument("--data", type=Path, help="data set (default: looked for as emotion.dataset does)")
    parser.add_argument("--split", type=Path, metavar="FILE", help="instead, take the members out of an exported .keras")
    options = parser.parse_args(arguments)
    if options.split:
        print(*restore(options.split) or ["every member has its best.keras"], sep="\n")
        return
    if not (options.members and options.name):
        parser.error("members and --name must be given, or --split")
    data = load_fer2013(options.data)
    cleaning.check_official(data)
    record = make_run(options.members, options.name, data, shares=options.shares)
    print(on_public_test(record))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
