"""What does the way from an uploaded picture to its emotion cost, compared with handing the model the right pixels?

Sends each 48x48 image of FER-2013's PublicTest through `EmotionRecognizer.predict` (find, align, classify), as a user who
uploads it would, and the same pixels directly to the model. Run from the project's root, about a minute on two cores:

    python -m benchmarks.measure_path
    python -m benchmarks.measure_path --limit 500 --model saved_models/emotion_model.tflite
"""

import argparse
from dataclasses import dataclass

import numpy as np

from emotion.dataset import Split, load_fer2013
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
    """

    n: int
    answered: float
    direct: float
    direct_answered: float
    path_answered: float


def measure(split: Split, recognizer: EmotionRecognizer) -> PathReport:
    """Compares both ways on the same images."""
    direct = recognizer.predict_crops(split.images).argmax(axis=1) == split.labels
    through = np.full(len(split), -1)
    for index, image in enumerate(split.images):
        faces = recognizer.predict(image)
        if faces:
            through[index] = max(faces, key=lambda face: face.box[2] * face.box[3]).probabilities.argmax()
    answered = through >= 0
    path = through[answered] == split.labels[answered]
    return PathReport(len(split), answered.mean(), direct.mean(), direct[answered].mean(), path.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="use a seeded random sample of this many images")
    parser.add_argument("--model", help="a .tflite file (default: the one that the page serves)")
    options = parser.parse_args()
    split = load_fer2013().public_test
    if options.limit is not None:
        split = split.take(np.random.default_rng(0).permutation(len(split))[: options.limit])
    report = measure(split, EmotionRecognizer(options.model))
    print(f"PublicTest images sent                        {report.n:6d}")
    print(f"a face was found in                           {report.answered:6.1%}")
    print(f"accuracy, pixels straight to the model, all   {report.direct:6.1%}")
    print(f"accuracy, pixels straight, answered images    {report.direct_answered:6.1%}")
    print(f"accuracy, whole path, answered images         {report.path_answered:6.1%}")
    print(f"cost of the path, in points                   {100 * (report.direct_answered - report.path_answered):+6.1f}")


if __name__ == "__main__":
    main()
