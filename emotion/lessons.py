"""What large networks say of many views of each picture, written down once, so that small ones can learn from them anywhere.

    python -m emotion.lessons resnet50_imagenet_long se_resnet_large --views 20
    python -m emotion.lessons saved_models/emotion_model_int8.tflite --views 12

A teacher that takes ten times as long as its pupil cannot be asked at every step, least of all on two CPU cores. Here each
teacher answers a fixed number of views of all of Training, on a GPU in seconds. A view's number says all about it, so a pupil
that is shown view 7 is told what the teachers said of view 7: they agree on what they look at, which is what makes such lessons
good. Views are mixed in pairs, so that they also lie between the pictures, where teachers know less and tell more.
Source: Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent".

Keras, NumPy and OpenCV only.
"""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import keras
import numpy as np

from emotion import cleaning
from emotion.architectures import build
from emotion.augmentation import STANDARD, Augmentation
from emotion.dataset import load_fer2013
from emotion.framing import framed as framed_pictures
from emotion.fused_norm import with_fused_normalization
from emotion.training_config import TrainingConfig

Teacher = Callable[[np.ndarray], np.ndarray]
"""Grey levels float32 (n, 48, 48, 1), 0..255 -> probabilities (n, classes)."""
FILE = "lessons.npy"
CHANGE = replace(STANDARD, erase=0.3)
FRAMED = 0.3
"""Share of pictures framed as the page frames a face."""
MIXED = 0.3
"""Alpha of the Beta distribution by which pictures are mixed."""


def view(
    images: np.ndarray, targets: np.ndarray, framed: np.ndarray, number: int, change: Augmentation = CHANGE
) -> tuple[np.ndarray, np.ndarray]:
    """Returns one view of every picture, the same whenever it is asked for.

    Args:
        images: uint8 (n, 48, 48).
        targets: float32 (n, classes), rows sum to 1.
        framed: uint8 (n, 48, 48), the same pictures as the page frames them.
        number: which view, from 0.
        change: how strongly pictures are changed.

    Returns:
        float32 (n, 48, 48, 1), grey levels 0..255, and the targets, mixed as the pictures are.
    """
    rng = np.random.default_rng((48, number))
    count, side = len(images), images.shape[1]
    chosen = np.where(rng.random((count, 1, 1)) < FRAMED, framed, images)
    mirrored = np.where(rng.random(count) < 0.5 * change.flip, -1.0, 1.0)
    angle = np.deg2rad(rng.uniform(-change.rotation, change.rotation, count))
    scale = 1 + rng.uniform(-change.zoom, change.zoom, count)
    shift = rng.uniform(-change.shift, change.shift, (count, 2)) * side
    gain = 1 + rng.uniform(-change.contrast, change.contrast, (count, 1, 1)).astype(np.float32)
    offset = rng.uniform(-255 * change.brightness, 255 * change.brightness, (count, 1, 1)).astype(np.float32)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(count, 2, 2)
    turn = turn * scale[:, None, None] * np.stack([mirrored, np.ones(count)], axis=1)[:, None, :]
    centre = (side - 1) / 2
    moves = np.concatenate([turn, (centre + shift - turn.sum(axis=2) * centre)[..., None]], axis=2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = np.stack([
        cv2.warpAffine(image, move, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        for image, move in zip(chosen, moves, strict=True)
    ]).astype(np.float32)  # fmt: skip
    mean = seen.mean(axis=(1, 2), keepdims=True)
    seen = np.clip((seen - mean) * gain + mean + offset, 0, 255)
    seen = _erase(seen, rng, change.erase)[..., None]
    share, partner = rng.beta(MIXED, MIXED, (count, 1)).astype(np.float32), rng.permutation(count)
    pixels = share[:, :, None, None]
    return pixels * seen + (1 - pixels) * seen[partner], share * targets + (1 - share) * targets[partner]


def _erase(images: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
    """Covers a rectangle (side 10-40 % of the picture's) in some of the pictures by one grey level."""
    count, side = len(images), images.shape[1]
    length = rng.uniform(0.1, 0.4, (count, 2)) * side
    start = rng.uniform(0, 1, (count, 2)) * (side - length)
    steps = np.arange(side)
    inside = (steps >= start[..., None]) & (steps < (start + length)[..., None])
    covered = inside[:, 0, :, None] & inside[:, 1, None, :] & (rng.random((count, 1, 1)) < probability)
    return np.where(covered, rng.uniform(0, 255, (count, 1, 1)), images).astype(np.float32)


def write(teacher: Teacher, images: np.ndarray, framed: np.ndarray, views: int, folder: Path) -> Path:
    """Asks a teacher about every view and keeps its answers, float16 (views, n, classes), in the folder of its run."""
    folder.mkdir(parents=True, exist_ok=True)
    nothing = np.zeros((len(images), 1), np.float32)
    answers = []
    for number in range(views):
        seen, _ = view(images, nothing, framed, number)
        answers.append(np.asarray(teacher(seen)).astype(np.float16))
    part = folder / f"{FILE}.part"
    with part.open("wb") as file:
        np.save(file, np.stack(answers))
    part.replace(folder / FILE)
    return folder / FILE


def read(names: list[str], runs: Path, views: int) -> np.ndarray:
    """Returns what the teachers said together: probabilities of the mean of their log-probabilities, float32 (views, n, classes).

    Raises:
        FileNotFoundError: a teacher has not written its lessons; the message names it.
        ValueError: a teacher wrote of fewer views.
    """
    total = 0.0
    for name in names:
        path = runs / name / FILE
        if not path.is_file():
            raise FileNotFoundError(f"teachers must have written their lessons (python -m emotion.lessons). Found none of {name}")
        answers = np.load(path)
        if len(answers) < views:
            raise ValueError(f"lessons must be of {views} views or more. Received: {len(answers)}, of {name}")
        total = total + np.log(np.maximum(answers[:views].astype(np.float32), 1e-6))
    total = total / len(names)
    total = np.exp(total - total.max(axis=-1, keepdims=True))
    return total / total.sum(axis=-1, keepdims=True)


def batches(
    images: np.ndarray, targets: np.ndarray, framed: np.ndarray, config: TrainingConfig, runs: Path, first_epoch: int = 0
):
    """Yields shuffled batches without end: each epoch one view of every picture and what it is to learn of it.

    What an epoch yields is a function of (seed, epoch) alone, as in `emotion.batches`. Views come again after
    `config.distillation.views` epochs, every other time mirrored.

    Yields:
        x float32 (batch, 48, 48, 1) grey levels, y float32 (batch, classes): the teachers' share and the labels' together.
    """
    lesson, size, epoch = config.distillation, config.batch_size, first_epoch
    taught = read(lesson.teachers, runs, lesson.views)
    if taught.shape[1] != len(images):
        raise ValueError(
            f"lessons must be of the pictures fitted. Received: lessons of {taught.shape[1]}, {len(images)} pictures"
        )
    while True:
        rng = np.random.default_rng((config.seed, epoch))
        number = epoch % lesson.views
        x, y = view(images, targets, framed, number)
        if epoch // lesson.views % 2:
            x = x[:, :, ::-1]
        y = lesson.share * taught[number] + (1 - lesson.share) * y
        order = rng.permutation(len(x))
        for start in range(0, len(order), size):
            chosen = np.take(order, np.arange(start, start + size), mode="wrap")
            yield x[chosen], y[chosen]
        epoch += 1


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.lessons --help`."""
    from emotion.recognizer import read_record
    from emotion.training import RUNS

    parser = argparse.ArgumentParser(description="Let finished runs write down what they say of many views of Training.")
    parser.add_argument("teachers", nargs="+", help="finished runs that still have their best.keras, or an exported .tflite")
    parser.add_argument("--views", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--data", type=Path, help="data set (default: looked for as emotion.dataset does)")
    parser.add_argument("--run-dir", type=Path, default=RUNS, help="folder that holds the runs' folders")
    options = parser.parse_args(arguments)
    data = load_fer2013(options.data)
    cleaning.check_official(data)
    images = cleaning.clean(data)[0].training.images
    framed = framed_pictures(images)
    for teacher in options.teachers:
        exported = teacher.endswith(".tflite")
        folder = options.run_dir / (read_record(Path(teacher))["name"] if exported else teacher)
        asked = _exported(Path(teacher)) if exported else _finished(folder)
        path = write(asked, images, framed, options.views, folder)
        print(f"{teacher}: {options.views} views of {len(images):,} pictures in {path}", flush=True)


def _finished(folder: Path) -> Teacher:
    """A finished run's network, in bfloat16."""
    config = TrainingConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = build(config.architecture, config.architecture_options, pretrained=False)
    model.set_weights(keras.saving.load_model(folder / "best.keras", compile=False).get_weights())
    network = with_fused_normalization(model)
    keras.config.set_dtype_policy("float32")
    return lambda seen: network.predict(seen, batch_size=512, verbose=0)


def _exported(path: Path) -> Teacher:
    """An exported file as the page serves it, with its looks."""
    from emotion.export import tflite_answers

    return lambda seen: tflite_answers(path, seen[..., 0])["probabilities"]


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
