"""What do the 468 landmarks tell of the emotion: alone, and beside a network?

Fits a small network on the landmarks of Training's faces (aligned, so that place, size and turn say nothing) and prints its
accuracy on PublicTest, alone and with its answers multiplied into those recorded of a run. Run from the project's root:

    python -m benchmarks.measure_landmarks --keep fer2013/.cache/landmarks    # about 12 minutes on two cores; again, one minute
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from emotion import cleaning
from emotion.dataset import load_fer2013
from emotion.evaluation import mcnemar_test
from emotion.faces import FaceFinder, read_image, upright
from emotion.labels import EMOTIONS

ANSWERS = Path("saved_models/runs/vgg_small/public_test_4_looks.npy")
EPOCHS = 25
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)
"""Exponents of the landmarks' probabilities beside 1 for the network's."""


def landmarks_of(images: np.ndarray, finder: FaceFinder) -> np.ndarray:
    """Returns the aligned landmarks of each picture's largest face, float32 (n, 936); NaN where no face is found."""
    result = np.full((len(images), 936), np.nan, np.float32)
    for i, image in enumerate(images):
        faces = finder.find(read_image(image))
        if faces:
            points = max(faces, key=lambda face: face.box[2] * face.box[3]).landmarks
            move = upright(points)
            result[i] = (points @ move[:, :2].T + move[:, 2]).ravel()
    return result


def kept(name: str, images: np.ndarray, folder: Path | None) -> np.ndarray:
    """Returns `landmarks_of`, from the folder's file of that name if there is one."""
    path = folder / f"{name}.npy" if folder else None
    if path and path.is_file():
        return np.load(path)
    result = landmarks_of(images, FaceFinder())
    if path:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, result)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder that keeps the landmarks for the next time")
    parser.add_argument("--answers", type=Path, default=ANSWERS, help="a network's probabilities (default: %(default)s)")
    options = parser.parse_args()
    folder = options.keep
    data, _ = cleaning.clean(load_fer2013())
    train, public = (kept(name, getattr(data, name).images, folder) for name in ("training", "public_test"))
    found, seen = (np.isfinite(points[:, 0]) for points in (train, public))
    mean, spread = train[found].mean(axis=0), train[found].std(axis=0)
    train, public = (np.clip((points - mean) / spread, -5, 5) for points in (train, public))
    network = MLPClassifier((256, 128), alpha=1e-2, learning_rate_init=5e-4, batch_size=256, max_iter=EPOCHS, random_state=0)
    warnings.simplefilter("ignore", ConvergenceWarning)  # so many epochs, and no more, are meant
    network.fit(train[found], data.training.labels[found])
    geometry = np.full((len(public), len(EMOTIONS)), 1 / len(EMOTIONS))
    geometry[seen] = network.predict_proba(public[seen])
    labels = data.public_test.labels
    print(f"faces found in {found.sum():,} of {len(found):,} Training pictures, {seen.sum():,} of {len(seen):,} of PublicTest")
    print(f"landmarks alone: {(geometry.argmax(axis=1) == labels).mean():.1%} of PublicTest")
    alone = np.load(options.answers)
    for share in SHARES:
        answers = (np.log(alone + 1e-9) + share * np.log(geometry + 1e-9)).argmax(axis=1)
        p = mcnemar_test(labels, answers, alone.argmax(axis=1))["p_value"]
        print(f"network x landmarks ** {share}: {(answers == labels).mean():.1%} (McNemar against it alone: p = {p:.2f})")


if __name__ == "__main__":
    main()
