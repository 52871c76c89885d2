"""Contracts of emotion/explain.py: cues from landmarks, heat maps, and heat maps laid over photos."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion.explain import MAX_TURN, NEUTRAL, WORDS, activation_map, cues, measure, overlay, turn
from emotion.faces import REFERENCE_POINTS, FaceFinder, align, eyes_and_mouth, read_image
from emotion.labels import EMOTIONS

PROJECT = Path(__file__).parent.parent
PHOTOS = ("astronaut", "grace_hopper")

BROWS = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 300, 293, 334, 296, 336, 276, 283, 282, 295, 285)  # left half, right half

# Points of the mesh that a mirror swaps.
PAIRS = (
    (33, 263), (133, 362), (70, 300), (63, 293), (105, 334), (66, 296), (107, 336), (46, 276), (53, 283), (52, 282), (65, 295),
    (55, 285), (160, 387), (159, 386), (158, 385), (144, 373), (145, 374), (153, 380), (61, 291), (37, 267), (97, 326),
)  # fmt: skip


@pytest.fixture(scope="module")
def finder():
    return FaceFinder()


@pytest.fixture(scope="module")
def photos():
    return {name: read_image(PROJECT / "tests" / "data" / f"{name}.jpg") for name in PHOTOS}


@pytest.fixture(scope="module")
def faces(finder, photos):
    """Landmarks of the one face of each photo."""
    return {name: finder.find(photo)[0].landmarks for name, photo in photos.items()}


def drawn_face(**ratios):
    """Landmarks of a face, 100 pixels between the eyes, whose ratios are the neutral medians but for those given."""
    sizes = {name: median for name, (median, _) in NEUTRAL.items()} | ratios
    points = np.zeros((468, 2))

    def put(indices, x, y):
        points[list(indices)] = np.stack(np.broadcast_arrays(x, y), axis=-1)

    put((33, 133, 362, 263), (-0.65, -0.35, 0.35, 0.65), 0)
    for brow, side in ((BROWS[:10], -1), (BROWS[10:], 1)):
        put(brow, side * 0.5, -sizes["brow_height"])
        put(brow[-1:], side * sizes["brow_gap"] / 2, -sizes["brow_height"])
    put((160, 159, 158, 385, 386, 387), (-0.6, -0.5, -0.4, 0.4, 0.5, 0.6), -sizes["eye_opening"] / 2)
    put((144, 145, 153, 380, 374, 373), (-0.6, -0.5, -0.4, 0.4, 0.5, 0.6), sizes["eye_opening"] / 2)
    put((97, 2, 326), (-0.1, 0, 0.1), 0.75)
    put((37, 267), (-0.1, 0.1), 0.75 + sizes["upper_lip"])
    put((13, 14), 0, (1.1 - sizes["mouth_opening"] / 2, 1.1 + sizes["mouth_opening"] / 2))
    put((61, 291), (-sizes["mouth_width"] / 2, sizes["mouth_width"] / 2), 1.1 - sizes["mouth_corners"])
    return (points * 100 + (200, 150)).astype(np.float32)


def moved(landmarks, degrees=0.0, scale=1.0, shift=(0.0, 0.0)):
    radians = np.deg2rad(degrees)
    rotation = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    return (scale * landmarks @ rotation.T + shift).astype(np.float32)


def mirrored(landmarks, width=512):
    result = landmarks * (-1, 1) + (width, 0)
    for pair in PAIRS:
        result[list(pair)] = result[list(pair[::-1])]
    return result


def words(landmarks):
    return [cue.words for cue in cues(landmarks)]


# --- cues


def test_each_ratio_is_the_length_it_names():
    for name, (median, spread) in NEUTRAL.items():
        expected = {key: value[0] for key, value in NEUTRAL.items()} | {name: median + spread}
        assert measure(drawn_face(**{name: median + spread})) == pytest.approx(expected, abs=1e-5)


def test_a_face_like_the_neutral_median_has_no_cue():
    assert cues(drawn_face()) == []


@pytest.mark.parametrize("name", NEUTRAL)
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_cue_is_reported_beyond_two_spreads_and_not_before(name, sign):
    median, spread = NEUTRAL[name]
    assert cues(drawn_face(**{name: median + sign * 1.9 * spread})) == []
    found = cues(drawn_face(**{name: median + sign * 2.1 * spread}))
    expected = WORDS[name][sign > 0]
    assert [cue.words for cue in found] == ([expected] if expected else [])
    for cue in found:
        assert (cue.name, cue.neutral, cue.direction) == (name, median, "above" if sign > 0 else "below")
        assert cue.value == pytest.approx(median + sign * 2.1 * spread, abs=1e-5)
        assert cue.strength == pytest.approx(2.1, abs=0.01)


@pytest.mark.parametrize(
    ("points", "shift", "expected"),
    [
        ((61, 291), (0, 0.3), "mouth corners down"),
        ((61, 291), (0, -0.3), "mouth corners up"),
        ((14, 17, 84, 314), (0, 0.3), "mouth open"),
        (BROWS, (0, -0.25), "brows raised"),
        (BROWS, (0, 0.15), "brows lowered"),
        ((55,), (0.15, 0), "brows drawn together"),
        ((144, 145, 153, 373, 374, 380), (0, 0.15), "eyes wide open"),
        ((144, 145, 153, 373, 374, 380), (0, -0.08), "eyes narrowed"),
        ((37, 0, 267), (0, -0.12), "upper lip raised"),
    ],
)
def test_points_of_a_real_face_moved_by_hand_give_their_cue(faces, points, shift, expected):
    landmarks = faces["grace_hopper"].copy()
    assert expected not in words(landmarks)
    left, right, _ = eyes_and_mouth(landmarks)
    landmarks[list(points)] += np.float32(shift) * np.linalg.norm(right - left)
    assert expected in words(landmarks)


def test_the_strongest_cue_comes_first():
    strengths = {"brow_height": 3, "mouth_opening": 6, "eye_opening": 4}
    changed = {name: NEUTRAL[name][0] + strength * NEUTRAL[name][1] for name, strength in strengths.items()}
    assert words(drawn_face(**changed)) == ["mouth open", "eyes wide open", "brows raised"]


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("change", [{"shift": (-300, 90)}, {"scale": 0.1}, {"scale": 9}, {"degrees": 25}, {"degrees": -170}])
def test_ratios_do_not_depend_on_place_size_or_roll(faces, name, change):
    landmarks = faces[name]
    assert measure(moved(landmarks, **change)) == pytest.approx(measure(landmarks), abs=2e-4)
    assert turn(moved(landmarks, **change)) == pytest.approx(turn(landmarks), abs=2e-4)


@pytest.mark.parametrize("name", PHOTOS)
def test_a_mirrored_face_has_the_same_ratios_and_cues_and_the_opposite_turn(faces, name):
    landmarks = faces[name]
    assert measure(mirrored(landmarks)) == pytest.approx(measure(landmarks), abs=1e-5)
    assert words(mirrored(landmarks)) == words(landmarks)
    assert turn(mirrored(landmarks)) == pytest.approx(-turn(landmarks), abs=1e-5)


@pytest.mark.parametrize("name", PHOTOS)
def test_a_mirrored_photo_gives_the_same_cues(finder, photos, faces, name):
    (face,) = finder.find(np.ascontiguousarray(photos[name][:, ::-1]))
    assert set(words(face.landmarks)) == set(words(faces[name]))


def test_a_smile_and_a_plain_face_are_told_apart(faces):
    assert {"mouth open", "mouth corners up", "mouth stretched wide"} <= set(words(faces["astronaut"]))
    assert cues(faces["grace_hopper"]) == []


@pytest.mark.parametrize("side", [-1, 1])
def test_a_head_turned_too_far_has_no_cues(side):
    landmarks = drawn_face(mouth_opening=0.3)
    landmarks[1, 0] += side * 100 * (MAX_TURN - 0.02)
    assert words(landmarks) == ["mouth open"]
    landmarks[1, 0] += side * 100 * 0.04
    assert words(landmarks) == [] and turn(landmarks) * side > MAX_TURN


@pytest.mark.parametrize("shape", [(467, 2), (468, 3), (1, 468, 2)])
def test_other_than_468_points_are_refused(shape):
    with pytest.raises(ValueError, match=r"landmarks must have shape \(468, 2\). Received"):
        cues(np.zeros(shape, np.float32))


@pytest.mark.data
def test_the_neutral_reference_is_that_of_the_training_set(finder, fer2013):
    from benchmarks.measure_cues import find_landmarks, median_and_spread

    sample = find_landmarks(fer2013.training, EMOTIONS.index("neutral"), 250, finder, seed=1)
    for name, (median, spread) in NEUTRAL.items():
        found, found_spread = median_and_spread(np.array([measure(landmarks)[name] for landmarks in sample]))
        assert abs(found - median) < 0.35 * spread, name  # four standard errors of this sample's median
        assert 0.7 < found_spread / spread < 1.4, name


# --- heat maps


def evidence_at(row, column, emotion="happy", shape=(6, 6)):
    evidence = np.full((*shape, len(EMOTIONS)), -1, np.float32)
    evidence[row, column, EMOTIONS.index(emotion)] = 5
    return evidence


def peak(heat):
    return np.unravel_index(heat.argmax(), heat.shape)


def test_a_heat_map_covers_the_face_and_runs_from_0_to_1():
    heat = activation_map(np.random.default_rng(0).normal(size=(6, 6, 7)), "sad")
    assert heat.shape == (48, 48) and heat.dtype == np.float32
    assert heat.min() == 0 and heat.max() == pytest.approx(1)


@pytest.mark.parametrize(("row", "column", "shape"), [(1, 4, (6, 6)), (5, 0, (6, 6)), (2, 2, (3, 3)), (7, 3, (12, 12))])
def test_heat_lies_where_the_emotion_has_its_evidence(row, column, shape):
    y, x = peak(activation_map(evidence_at(row, column, shape=shape), "happy"))
    cell = 48 / shape[0]
    assert row * cell <= y < (row + 1) * cell and column * cell <= x < (column + 1) * cell


def test_evidence_for_another_emotion_gives_no_heat():
    assert not activation_map(evidence_at(2, 3), "fear").any()


def test_a_heat_map_does_not_depend_on_the_strength_of_the_evidence():
    evidence = np.random.default_rng(1).normal(size=(6, 6, 7))
    assert np.allclose(activation_map(evidence, "angry"), activation_map(evidence * 40, "angry"), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 6, 6, 7), (6, 6), (6, 6, 6), (0, 6, 7)])
def test_evidence_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"evidence must have shape \(h, w, 7\). Received"):
        activation_map(np.zeros(shape), "happy")


def test_an_unknown_emotion_is_refused():
    with pytest.raises(ValueError, match="emotion must be one of angry"):
        activation_map(np.zeros((6, 6, 7)), "bored")


# --- over the photo


def placed_face(degrees=0.0, scale=4.0, centre=(200.0, 200.0)):
    """Landmarks of a face that `align` turns and shrinks by the given amounts; only eyes and mouth are set."""
    landmarks = np.zeros((468, 2))
    for pair, point in zip(((33, 133), (362, 263), (61, 291)), REFERENCE_POINTS, strict=True):
        landmarks[list(pair)] = np.array(point) - 24
    return moved(landmarks, degrees, scale, centre)


def change(before, after):
    """How much each pixel differs: float (h, w)."""
    return np.abs(after.astype(float) - before).sum(axis=2)


def centre_of(weights):
    """Centre of mass in continuous coordinates: x, y."""
    y, x = np.indices(weights.shape)
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum() + 0.5


@pytest.mark.parametrize(("degrees", "scale"), [(0, 4), (30, 4), (-75, 2.5), (160, 6), (20, 0.7)])
@pytest.mark.parametrize("spot", [(0.0, 0.0), (13.0, -9.0), (-6.0, 15.0)])
def test_a_hot_spot_lies_over_what_the_aligned_face_shows_there(degrees, scale, spot):
    landmarks = placed_face(degrees, scale)
    x, y = moved(np.array([spot]), degrees, scale, (200, 200))[0]
    picture = np.zeros((400, 400), np.float32)
    distance = np.hypot(*(np.indices(picture.shape)[::-1] + 0.5 - np.array([x, y])[:, None, None]))
    picture = np.round(255 * np.exp(-((distance / (2.5 * scale)) ** 2))).astype(np.uint8)
    heat = align(picture, landmarks) / np.float32(255)
    grey = np.full((400, 400, 3), 128, np.uint8)
    difference = change(grey, overlay(grey, heat, landmarks))
    assert np.abs(centre_of(difference) - (x, y)).max() < 0.25 * max(scale, 1)  # a quarter of a heat pixel


@pytest.mark.parametrize("name", PHOTOS)
def test_heat_at_an_eye_or_the_mouth_lies_over_it_in_the_photo(photos, faces, name):
    for reference, point in zip(REFERENCE_POINTS, eyes_and_mouth(faces[name]), strict=True):
        heat = np.zeros((48, 48), np.float32)
        heat[int(reference[1]), int(reference[0])] = 1
        difference = change(photos[name], overlay(photos[name], cv2.GaussianBlur(heat, (0, 0), 1), faces[name]))
        width = np.ptp(faces[name][:, 0])
        assert np.linalg.norm(centre_of(difference) - point) < 0.06 * width


def test_the_photo_stays_as_it_is_without_heat_and_beside_the_face(photos, faces):
    photo, landmarks = photos["astronaut"], faces["astronaut"]
    before = photo.copy()
    assert np.array_equal(overlay(photo, np.zeros((48, 48), np.float32), landmarks), photo)
    assert np.array_equal(overlay(photo, np.ones((48, 48), np.float32), landmarks, opacity=0), photo)
    result = overlay(photo, np.ones((48, 48), np.float32), landmarks)
    assert result.dtype == np.uint8 and result.shape == photo.shape
    changed = change(photo, result) > 0
    assert 0.01 < changed.mean() < 0.25
    assert np.array_equal(photo, before)


def test_less_evidence_lets_more_of_the_photo_through():
    chequered = np.indices((96, 96)).sum(axis=0) // 8 % 2 * 255
    picture = np.repeat(chequered.astype(np.uint8)[..., np.newaxis], 3, axis=2)
    landmarks = placed_face(scale=2, centre=(48, 48))
    contrasts = []
    for level in (0, 0.25, 0.5, 1):
        inner = overlay(picture, np.full((48, 48), level, np.float32), landmarks)[16:80, 16:80, 0]
        contrasts.append(int(inner.max()) - int(inner.min()))
    assert contrasts == sorted(contrasts, reverse=True) and len(set(contrasts)) == 4


@pytest.mark.parametrize("centre", [(0, 0), (399, 200), (-60, 420), (-5000, 90)])
def test_a_face_that_leaves_the_picture_is_coloured_as_far_as_it_is_inside(centre):
    heat, large = np.ones((48, 48), np.float32), np.full((1200, 1200, 3), 90, np.uint8)
    whole = overlay(large, heat, placed_face(20, 4, np.add(centre, 400)))
    part = overlay(large[:400, :400], heat, placed_face(20, 4, centre))
    assert change(whole[400:800, 400:800], part).max() < 50  # OpenCV rounds to 1/32 pixel; one pixel beside: 170


def test_wrong_pictures_and_heat_maps_are_refused():
    picture, heat = np.zeros((50, 50, 3), np.uint8), np.zeros((48, 48), np.float32)
    for wrong in (picture[..., 0], picture.astype(float)):
        with pytest.raises(ValueError, match=r"image must be uint8 of shape \(h, w, 3\)"):
            overlay(wrong, heat, placed_face())
    with pytest.raises(ValueError, match=r"heat must have shape \(48, 48\). Received: \(6, 6\)"):
        overlay(picture, heat[:6, :6], placed_face())


def test_importing_needs_neither_tensorflow_nor_the_page_nor_figures():
    absent = dict.fromkeys(("tensorflow", "keras", "gradio", "matplotlib"))
    code = f"import sys; sys.modules.update({absent}); import emotion.explain"
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
