"""Pre-trains the body of a network on labelled pictures of anything, for transfer to faces where ImageNet weights cannot be had.

    python -m emotion.pretraining --body mobilenet_v2                                # on Tiny ImageNet, all of it
    python -m emotion.pretraining --body vgg16_norm --set classes=100 per_class=250 epochs=4 batch_size=128 warmup_epochs=1
    python -m emotion.pretraining --body resnet50 --data my_pictures.npz

The same loop as for faces: run the command again to resume. The run's folder, saved_models/pretrained/<name>/, holds config.json,
history.csv, checkpoint.npz while it runs, record.json, and

    body.npz        weights up to the last pooling, kernels in float16: what `weights=` of the builders takes, under any backend

The validation pictures choose the epoch, so their accuracy in the record is a little flattered; it serves to compare bodies.
"""

import argparse
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from emotion.augmentation import STANDARD
from emotion.evaluation import wilson_interval
from emotion.fitting import claim, fit
from emotion.pictures import Pictures, load_pictures
from emotion.recorder import Recorder, predict
from emotion.training import git_commit, versions
from emotion.training_config import TrainingConfig, parse_settings
from emotion.transfer import PROJECT, body_checksum, save_body

PRETRAINED = PROJECT / "saved_models" / "pretrained"


@dataclass(frozen=True)
class PretrainingConfig(TrainingConfig):
    """The settings of a pre-training run: those of any run (what speaks of FER-2013 does nothing here), and how much is used.

    Attributes:
        classes: number of classes, drawn by the seed; 0 is all.
        per_class: training pictures of each, drawn by the seed; 0 is all.
    """

    classes: int = 0
    per_class: int = 0

    def __post_init__(self):
        super().__post_init__()
        for name in ("classes", "per_class"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative. Received: {getattr(self, name)}")
        if self.balance != "none":
            raise ValueError(f"balance must be none: it counts emotions. Received: {self.balance!r}")


_RESNET50 = PretrainingConfig(
    name="resnet50",
    architecture="resnet50",
    architecture_options={"weights": None, "dropout": 0.2},
    epochs=25,
    batch_size=256,
    optimizer="sgd",
    learning_rate=0.1,
    schedule="cosine",
    warmup_epochs=2,
    weight_decay=0.005,
    label_smoothing=0.1,
    augmentation=STANDARD,
    precision="mixed_bfloat16",
    note="Residual networks with batch normalisation learn fast and well with a high rate and momentum.",
)

BODIES = {
    "vgg16_norm": replace(
        _RESNET50,
        name="vgg16_norm",
        architecture="vgg16_norm",
        note="VGG16 with batch normalisation, which stands the same rate as the others.",
    ),
    "resnet50": _RESNET50,
    "mobilenet_v2": replace(
        _RESNET50,
        name="mobilenet_v2",
        architecture="mobilenet_v2",
        note="As resnet50; a small network underfits 200 classes rather than overfits them.",
    ),
    "vgg": replace(_RESNET50, name="vgg", architecture="vgg", architecture_options={}, note="The project's own plain network."),
    "se_resnet": replace(
        _RESNET50, name="se_resnet", architecture="se_resnet", architecture_options={}, note="The project's own residual network."
    ),
}
"""Name -> settings for Tiny ImageNet."""


def pretrain(
    config: PretrainingConfig, pictures: Pictures, folder: str | Path | None = None, verbose: int | str = "auto"
) -> dict:
    """Pre-trains (or goes on with, or returns the finished record of) one body.

    Args:
        config: the settings.
        pictures: loaded with the config's `classes`, `per_class` and `seed`.
        folder: of the run; None is saved_models/pretrained/<name>.
        verbose: as in `keras.Model.fit`.

    Returns:
        The record that was written to record.json.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    folder = Path(folder) if folder else PRETRAINED / config.name
    claim(folder, config)
    if (folder / "record.json").is_file():
        return json.loads((folder / "record.json").read_text(encoding="utf-8"))
    commit, count = git_commit(), len(pictures.classes)
    targets = np.eye(count, dtype=np.float32)[pictures.training.labels]
    sized = replace(config, architecture_options={**config.architecture_options, "classes": count})
    best, recorder = fit(sized, pictures.training.images, targets, pictures.validation, folder, verbose)
    save_body(best, folder / "body.npz")
    record = {**_record(config, pictures, best, recorder, folder / "body.npz"), "git_commit": commit}
    (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (folder / "checkpoint.npz").unlink(missing_ok=True)
    return record


def _record(config: PretrainingConfig, pictures: Pictures, best: keras.Model, recorder: Recorder, body: Path) -> dict:
    labels = pictures.validation.labels
    ranked = np.argsort(-predict(best, pictures.validation.images), axis=1)
    right = ranked == labels[:, None]
    return {
        "name": config.name,
        "config": config.to_dict(),
        "pictures": {
            "source": pictures.source,
            "used": {"classes": len(pictures.classes), "training": len(pictures.training), "validation": len(labels)},
            "available": pictures.available,
            "checksum": pictures.checksum,
        },
        "protocol": "the validation pictures choose the epoch and are what the accuracy is measured on",
        "metrics": {"accuracy": _share(right[:, 0]), "top_5_accuracy": _share(right[:, :5].any(axis=1))},
        "best_epoch": int(recorder.best_epoch) + 1,
        "epochs": config.epochs,
        "parameters": int(best.count_params()),
        "minutes": round(recorder.seconds / 60, 1),
        "body": {
            "file": body.name,
            "format": "npz; kernels float16, vectors float32",
            "bytes": body.stat().st_size,
            "sha256": body_checksum(body.resolve()),
        },
        "versions": versions(),
    }


def _share(right: np.ndarray) -> dict[str, float]:
    low, high = wilson_interval(int(right.sum()), len(right))
    return {"value": float(right.mean()), "low": low, "high": high}


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.pretraining --help`."""
    parser = argparse.ArgumentParser(description="Pre-train a network's body on labelled pictures; run it again to resume.")
    parser.add_argument("--body", choices=BODIES, required=True, help="which network")
    parser.add_argument("--data", type=Path, help="npz or folder (default: $TINY_IMAGENET_DIR, then ../shared/tiny_imagenet)")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings that win over the body's, in JSON")
    parser.add_argument("--run-dir", type=Path, help="folder of the run (default: saved_models/pretrained/<name>)")
    options = parser.parse_args(arguments)
    config = PretrainingConfig.from_dict({**BODIES[options.body].to_dict(), **parse_settings(options.set)})
    pictures = load_pictures(options.data, config.classes, config.per_class, config.seed)
    print(f"{config.name}: {len(pictures.training):,} pictures of {len(pictures.classes)} classes to fit", flush=True)
    record = pretrain(config, pictures, options.run_dir, verbose=2)
    for name, share in record["metrics"].items():
        print(f"{name.replace('_', ' ')}: {share['value']:.2%} ({share['low']:.2%} to {share['high']:.2%})")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
