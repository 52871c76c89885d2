"""What does the way from an uploaded picture to its emotion cost, compared with handing the model the right pixels?

Sends each 48x48 image of FER-2013's PublicTest (PrivateTest for a refit, which has seen the other) through
`EmotionRecognizer.predict` (find, align, classify), as a user who uploads it would, and the same pixels directly to the model.
Run from the project's root, about a minute on two cores:

    python -m benchmarks.measure_path
    python -m benchmarks.measure_path --limit 500 --model saved_models/emotion_model.tflite
    python -m benchmarks.measure_path --kept-tilt 0            # had alignment turned every head upright
"""

import argparse
from dataclasses import dataclass

import numpy as np

from emotion import faces
from emotion.dataset import FER2013, Split, load_fer2013
from emotion.recognizer import EmotionRecognizer


@dataclass(frozen=True)
class PathReport:
    """Shares 0..1 over n images.

    Attributes:
        n: images sent.
        answered: share of images in which a face was found.
        direct: accuracy of the model on the pixels themselves, over all images.
        direct_answered: the same over the answered images.
        path_answered: accuracy through the whole path, over the answered images (largest face of each).
        direct_loss, path_loss: mean of -log of the label's probability, over the answered images.
    """

    n: int
    answered: float
    direct: float
    direct_answered: float
    path_answered: float
    direct_loss: float
    path_loss: float


def unseen(data: FER2013, recognizer: EmotionRecognizer) -> tuple[str, Split]:
    """Returns the name and the pictures of the test to measure a model on: PublicTest, or PrivateTest where that was fitted."""
    usage = "PrivateTest" if recognizer.record.get("config", {}).get("refit") else "PublicTest"
    return usage, data.splits()[usage]


def measure(split: Split, recognizer: EmotionRecognizer) -> PathReport:
    """Compares both ways on the same images."""
    straight = recognizer.predict_crops(split.images)
    through = np.full_like(straight, np.nan)
    for row, image in zip(through, split.images, strict=True):
        found = recognizer.predict(image)
        if found:
            row[:] = max(found, key=lambda face: face.box[2] * face.box[3]).probabilities
    answered = ~np.isnan(through[:, 0])
    direct = straight.argmax(axis=1) == split.labels
    path = through[answered].argmax(axis=1) == split.labels[answered]
    losses = [_loss(p[answered], split.labels[answered]) for p in (straight, through)]
    return PathReport(len(split), answered.mean(), direct.mean(), direct[answered].mean(), path.mean(), *losses)


def _loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="use a seeded random sample of this many images")
    parser.add_argument("--model", help="a .tflite file (default: the one that the page serves)")
    parser.add_argument("--kept-tilt", type=float, metavar="SHARE", help="of a head's tilt (default: emotion.faces.KEPT_TILT)")
    options = parser.parse_args()
    if options.kept_tilt is not None:
        faces.KEPT_TILT = options.kept_tilt
    recognizer = EmotionRecognizer(options.model)
    usage, split = unseen(load_fer2013(), recognizer)
    if options.limit is not None:
        split = split.take(np.random.default_rng(0).permutation(len(split))[: options.limit])
    report = measure(split, recognizer)
    print(f"{usage + ' images sent':<46}{report.n:6d}")
    print(f"a face was found in                           {report.answered:6.1%}")
    print(f"accuracy, pixels straight to the model, all   {report.direct:6.1%}")
    print(f"accuracy, pixels straight, answered images    {report.direct_answered:6.1%}")
    print(f"accuracy, whole path, answered images         {report.path_answered:6.1%}")
    print(f"cost of the path, in points                   {100 * (report.direct_answered - report.path_answered):+6.1f}")
    print(f"loss, pixels straight and whole path          {report.direct_loss:6.3f} {report.path_loss:6.3f}")


if __name__ == "__main__":
    main()
