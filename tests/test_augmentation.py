import numpy as np
import pytest
from keras import ops

from emotion.augmentation import STANDARD, Augmentation, RandomAugment


def changed(augmentation, images, seed=1, training=True):
    return ops.convert_to_numpy(RandomAugment(augmentation, seed)(images, training=training))


@pytest.fixture
def faces():
    return np.random.default_rng(0).uniform(0, 255, (32, 48, 48, 1)).astype("float32")


def test_nothing_changes_outside_training_or_without_settings(faces):
    assert np.array_equal(changed(STANDARD, faces, training=False), faces)
    assert np.array_equal(changed(Augmentation(), faces), faces)


def test_a_flip_mirrors_about_half_of_the_pictures_exactly(faces):
    out = changed(Augmentation(flip=True), faces)
    mirrored = [np.allclose(a, b[:, ::-1], atol=1e-2) for a, b in zip(out, faces, strict=True)]
    kept = [np.allclose(a, b, atol=1e-2) for a, b in zip(out, faces, strict=True)]
    assert sum(mirrored) + sum(kept) == 32 and 6 < sum(mirrored) < 26


def centre_of(image):
    ys, xs = np.mgrid[:48, :48]
    weight = image[..., 0] / image.sum()
    return (weight * xs).sum(), (weight * ys).sum()


def test_moves_stay_within_their_limits():
    spot = np.zeros((200, 48, 48, 1), "float32")
    spot[:, 22:26, 22:26] = 200
    centres = np.array([centre_of(i) for i in changed(Augmentation(shift=0.1), spot)]) - 23.5
    assert np.abs(centres).max() <= 4.9 and np.abs(centres).max() > 3.5
    turned = np.zeros((200, 48, 48, 1), "float32")
    turned[:, 22:26, 38:42] = 200
    offsets = np.array([centre_of(i) for i in changed(Augmentation(rotation=15), turned)]) - 23.5
    angles = np.degrees(np.arctan2(offsets[:, 1], offsets[:, 0]))
    assert np.abs(angles).max() <= 15.5 and angles.min() < -10 and angles.max() > 10
    assert np.allclose(np.hypot(*offsets.T), 16, atol=0.3)


def test_grey_levels_stay_in_range_and_erasing_covers_one_rectangle(faces):
    out = changed(Augmentation(brightness=1, contrast=1), faces)
    assert out.min() >= 0 and out.max() <= 255
    erased = changed(Augmentation(erase=1.0), faces) != faces
    shares = erased[..., 0].mean(axis=(1, 2))
    assert shares.min() > 0.005 and shares.max() <= 0.17


def test_the_same_seed_gives_the_same_pictures(faces):
    assert np.array_equal(changed(STANDARD, faces, seed=5), changed(STANDARD, faces, seed=5))
    assert not np.array_equal(changed(STANDARD, faces, seed=5), changed(STANDARD, faces, seed=6))


def test_settings_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match=r"zoom must lie in 0\.\.1. Received: 1\.5"):
        Augmentation(zoom=1.5)
