"""FER-2013's pictures as the page would cut them out."""

import cv2
import numpy as np
import pytest
from page_support import ASTRONAUT

from emotion import faces
from emotion.faces import REFERENCE_POINTS, FaceFinder, eyes_and_mouth, read_image
from emotion.framing import framed


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """The astronaut's face, turned and off the centre, and a picture without a face; both as small as FER-2013's."""
    grey = cv2.cvtColor(read_image(ASTRONAUT), cv2.COLOR_RGB2GRAY)
    found = FaceFinder().find(read_image(ASTRONAUT))[0]
    left, top, width, height = found.box
    centre = (left + width / 2, top + height / 2)
    turn = cv2.getRotationMatrix2D(centre, 15, 48 / (1.8 * height))
    turn[:, 2] += np.array([26, 25]) - centre
    face = cv2.warpAffine(grey, turn, (48, 48), flags=cv2.INTER_AREA)
    return np.stack([face, np.random.default_rng(0).integers(100, 130, (48, 48)).astype(np.uint8)])


def test_a_face_is_put_where_the_page_puts_it_and_a_picture_without_one_stays(pictures):
    face, nothing = framed(pictures, cache=None)
    assert np.array_equal(nothing, pictures[1])
    assert np.array_equal(face, FaceFinder().find(read_image(pictures[0]))[0].crop)
    points = eyes_and_mouth(FaceFinder().find(read_image(face))[0].landmarks)
    assert np.abs(points - REFERENCE_POINTS).max() < 2.5 < np.abs(
        eyes_and_mouth(FaceFinder().find(read_image(pictures[0]))[0].landmarks) - REFERENCE_POINTS
    ).max()


def test_what_was_found_is_kept_and_other_pictures_are_looked_at_anew(pictures, tmp_path, monkeypatch):
    first = framed(pictures, tmp_path / "cache")
    files = list((tmp_path / "cache").iterdir())
    assert len(files) == 1 and files[0].suffix == ".npy"
    with monkeypatch.context() as patch:
        patch.setattr(faces, "FaceFinder", lambda: pytest.fail("the pictures were looked at again"))
        assert np.array_equal(framed(pictures, tmp_path / "cache"), first)
    assert np.array_equal(framed(pictures[::-1], tmp_path / "cache"), first[::-1])
    assert len(list((tmp_path / "cache").iterdir())) == 2
