"""Where are the eyes and the mouth on the images of FER-2013's Training set?

Prints `REFERENCE_POINTS` for emotion/faces.py, which aligns every face to them. Run from the project's root:

    python -m benchmarks.measure_alignment            # all 28,709 images: about 5 minutes on two cores
    python -m benchmarks.measure_alignment --limit 1000
"""

import argparse

import numpy as np

from emotion.dataset import load_fer2013
from emotion.faces import FaceFinder, eyes_and_mouth, read_image


def find_points(images: np.ndarray, finder: FaceFinder) -> np.ndarray:
    """Returns eyes and mouth of the largest face of each image in which a face is found: float (n_found, 3, 2), pixels.

    Args:
        images: uint8 (n, 48, 48).
        finder: finds the faces.
    """
    points = []
    for image in images:
        faces = finder.find(read_image(image))
        if faces:
            largest = max(faces, key=lambda face: face.box[2] * face.box[3])
            points.append(eyes_and_mouth(largest.landmarks))
    return np.array(points, dtype=np.float64).reshape(-1, 3, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="measure a seeded random sample of this many images")
    limit = parser.parse_args().limit
    images = load_fer2013().training.images
    if limit is not None:
        images = images[np.random.default_rng(0).permutation(len(images))[:limit]]
    points = find_points(images, FaceFinder())
    print(f"faces found in {len(points)} of {len(images)} images of the Training set")
    for name, mean, spread in zip(("left eye", "right eye", "mouth"), points.mean(axis=0), points.std(axis=0), strict=True):
        print(f"{name:>9}: mean x {mean[0]:5.2f}, y {mean[1]:5.2f}; standard deviation {spread[0]:.2f}, {spread[1]:.2f} px")
    numbers = ", ".join(f"({x:.2f}, {y:.2f})" for x, y in points.mean(axis=0))
    print(f"REFERENCE_POINTS = ({numbers})")


if __name__ == "__main__":
    main()
