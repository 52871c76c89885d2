"""How do the measured ratios of a face differ between the emotions of FER-2013's Training set?

Prints, for each ratio, median and spread per emotion and how often its cue is reported; then `NEUTRAL` for
emotion/explain.py. Run from the project's root:

    python -m benchmarks.measure_cues                  # 1000 images of each class (disgust has 436): about 2 minutes on two cores
    python -m benchmarks.measure_cues --per-class 300
"""

import argparse

import numpy as np

from emotion.dataset import Split, load_fer2013
from emotion.explain import MAX_TURN, NOTABLE, WORDS, cues, measure, turn
from emotion.faces import FaceFinder, read_image
from emotion.labels import EMOTIONS


def find_landmarks(split: Split, emotion: int, count: int, finder: FaceFinder, seed: int = 0) -> np.ndarray:
    """Returns the landmarks of the largest face in each of `count` random images of a class: float32 (n_found, 468, 2).

    Heads turned beyond `MAX_TURN` are left out: the ratios are not meant for them.

    Args:
        split: one part of FER-2013.
        emotion: class index, 0..6.
        count: images to look at; all of them when there are fewer.
        finder: finds the faces.
        seed: of the sample.
    """
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(split.labels == emotion))[:count]
    answers = (finder.find(read_image(split.images[row])) for row in rows)
    largest = (max(faces, key=lambda face: face.box[2] * face.box[3]).landmarks for faces in answers if faces)
    return np.array([landmarks for landmarks in largest if abs(turn(landmarks)) <= MAX_TURN]).reshape(-1, 468, 2)


def median_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Returns the median and 1.4826 times the median absolute deviation of values (n,)."""
    median = np.median(values)
    return float(median), float(1.4826 * np.median(np.abs(values - median)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-class", type=int, default=1000, help="images to look at in each class")
    count = parser.parse_args().per_class
    training, finder = load_fer2013().training, FaceFinder()
    faces = {name: find_landmarks(training, i, count, finder) for i, name in enumerate(EMOTIONS)}
    ratios = {name: [measure(landmarks) for landmarks in found] for name, found in faces.items()}

    def table(title: str, cell) -> None:
        print(f"\n{title}\n{'':21}" + "".join(f"{name:>16}" for name in EMOTIONS))
        for ratio in WORDS:
            print(f"{ratio:21}" + "".join(f"{cell(ratio, name):>16}" for name in EMOTIONS))

    def stated(ratio: str, emotion: str) -> str:
        return "({:.3f}, {:.3f})".format(*median_and_spread(np.array([row[ratio] for row in ratios[emotion]])))

    print("faces measured: " + ", ".join(f"{len(found)} {name}" for name, found in faces.items()))
    table("(median, spread), unit: distance between the eyes", stated)
    shown = {name: [cues(landmarks) for landmarks in found] for name, found in faces.items()}
    print(f"\nfaces with a cue, % (at least {NOTABLE} spreads from neutral, by the constants in emotion/explain.py)")
    print(f"{'':21}" + "".join(f"{name:>10}" for name in EMOTIONS))
    for words in [*filter(None, np.ravel(list(WORDS.values()))), None]:
        shares = [np.mean([any(words in (None, cue.words) for cue in face) for face in shown[name]]) for name in EMOTIONS]
        print(f"{words or 'any':21}" + "".join(f"{share:>10.0%}" for share in shares))
    print("\nNEUTRAL = {")
    for ratio in WORDS:
        print(f'    "{ratio}": {stated(ratio, "neutral")},')
    print("}")


if __name__ == "__main__":
    main()
