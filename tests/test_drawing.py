"""Contracts of emotion/drawing.py."""

import numpy as np
import pytest

from emotion.drawing import Tag, annotate, contrast, enlargement, text_colour
from emotion.labels import COLOURS, EMOTIONS


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=2)


def test_the_picture_given_is_left_as_it_is():
    image = grey(500, 600)
    annotate(image, [Tag((100, 100, 200, 200), ("happy 93%",), "happy")])
    assert (image == 128).all()


@pytest.mark.parametrize("side", [500, 2000])
def test_the_box_is_drawn_on_the_face_in_the_colour_of_the_emotion(side):
    box = (side // 4, side // 4, side // 2, side // 2)
    drawn = annotate(grey(side, side), [Tag(box, (), "sad")])
    colour = tuple(bytes.fromhex(COLOURS["sad"][1:]))
    for x, y in ((side // 4, side // 2), (3 * side // 4 - 1, side // 2), (side // 2, side // 4), (side // 2, 3 * side // 4 - 1)):
        assert tuple(drawn[y, x]) == colour
    assert tuple(drawn[side // 2, side // 2]) == (128, 128, 128)


def test_thumbnails_are_enlarged_so_that_captions_are_legible_and_other_pictures_are_not():
    assert annotate(grey(48, 48), []).shape == (480, 480, 3)
    assert enlargement(grey(48, 48)) == 10
    assert annotate(grey(480, 320), []).shape == (480, 320, 3)


@pytest.mark.parametrize("box", [(0, 0, 40, 40), (560, 440, 40, 40), (0, 0, 600, 480), (300, 0, 5, 5)])
def test_captions_stay_inside_the_picture(box):
    image = grey(480, 600)
    without = changed(image, annotate(image, [Tag(box, (), "angry")])).sum()
    drawn = annotate(image, [Tag(box, ("1 angry 100%", "1 angry", "1"), "angry")])
    assert drawn.shape == image.shape
    assert changed(image, drawn).sum() > without


def test_a_caption_longer_than_the_picture_is_cut_and_not_an_error():
    assert annotate(grey(480, 20), [Tag((0, 0, 20, 20), ("a very long caption",), "fear", chosen=True)]).shape == (480, 20, 3)


def test_a_small_face_gets_a_shorter_caption_unless_it_is_the_chosen_one():
    image, box, captions = grey(1000, 1366), (600, 500, 40, 40), ("12 surprise or neutral 48%", "12")
    short = changed(image, annotate(image, [Tag(box, captions, "surprise")])).any(axis=0).sum()
    full = changed(image, annotate(image, [Tag(box, captions, "surprise", chosen=True)])).any(axis=0).sum()
    assert full > 2 * short


def test_captions_grow_with_the_picture():
    def caption_height(side):
        tag = Tag((side // 4, side // 2, side // 2, side // 4), ("happy",), "happy")
        image = grey(side, side)
        return changed(image, annotate(image, [tag]))[: side // 2, side // 3].sum()

    assert caption_height(4000) == pytest.approx(5 * caption_height(800), rel=0.2)


def test_landmarks_are_dots_at_their_positions():
    points = np.array([[100.5, 50.5], [300.5, 400.5]], np.float32)
    drawn = annotate(grey(500, 500), [Tag((50, 20, 400, 450), (), "happy", landmarks=points)])
    assert (drawn[50, 100] > 200).all() and (drawn[400, 300] > 200).all()
    assert (drawn[200, 200] == 128).all()


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_caption_text_has_enough_contrast_for_small_text(emotion):
    background = tuple(bytes.fromhex(COLOURS[emotion][1:]))
    assert contrast(text_colour(background), background) >= 4.5


def test_contrast_follows_wcag():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32), np.zeros((9, 9, 4), np.uint8)])
def test_a_picture_that_is_not_uint8_rgb_is_refused(image):
    with pytest.raises(ValueError, match="image must be uint8 of shape"):
        annotate(image, [])
