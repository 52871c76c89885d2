"""What several tests need: a small made-up data set, and the real one where it can be found."""

import csv

import numpy as np
import pytest
from page_support import ASTRONAUT, HOPPER, free_port
from PIL import Image

from emotion.cleaning import one_hot
from emotion.dataset import FER2013, Split, find_fer2013, load_fer2013
from emotion.fer_readers import USAGES, DatasetError
from emotion.labels import EMOTIONS


def draw_faces(per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 (7 n, 48, 48) pictures that a small network can tell apart, and their labels, shuffled."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(EMOTIONS)), per_class))
    images = rng.integers(0, 60, (len(labels), 48, 48)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 + 6 * label : 9 + 6 * label, 8:40] += 150
    return images, labels


@pytest.fixture(scope="session")
def drawn() -> FER2013:
    """A made-up data set: 20 pictures a class to fit, 6 in each test, with votes that agree with the labels."""
    parts = []
    for seed, per_class in enumerate((20, 6, 6)):
        images, labels = draw_faces(per_class, seed)
        votes = np.zeros((len(labels), 10), np.float32)
        votes[:, [4, 5, 6, 1, 3, 2, 0]] = one_hot(labels) * 10
        parts.append(Split(images, labels, np.arange(len(labels)), votes))
    return FER2013(*parts, source="drawn", checksum="drawn")


def write_folder(root, suffix=".png", distinguish=True, per_class=2):
    """Writes the usual download's layout, made-up pictures in it, and returns the pictures by (part, class, index)."""
    rng = np.random.default_rng(0)
    pictures, number = {}, 0
    for usage in USAGES:
        part = "train" if usage == "Training" else "test"
        for emotion in EMOTIONS:
            folder = root / part / emotion
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(per_class):
                picture = rng.integers(0, 256, (48, 48)).astype(np.uint8)
                name = f"{usage}_{number:05d}" if distinguish else f"im{number}"
                Image.fromarray(picture).save(folder / f"{name}{suffix}")
                pictures[usage, emotion, index] = picture
                number += 1
    return pictures


def write_csv(path, rows, header=("emotion", "pixels", "Usage")):
    """Writes rows (label, picture or text, usage) as `fer2013.csv` does."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for label, picture, usage in rows:
            pixels = picture if isinstance(picture, str) else " ".join(map(str, picture.ravel()))
            values = {"emotion": label, "pixels": pixels, "Usage": usage}
            writer.writerow([values[name.strip()] for name in header])


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """Sends the array cache into the test's own folder, and returns it."""
    monkeypatch.setattr("emotion.dataset._CACHE_FOLDER", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def fer2013() -> FER2013:
    """The real data set; the test is skipped, and says so, where it cannot be found."""
    try:
        find_fer2013()
    except DatasetError as error:
        pytest.skip(f"needs the real FER-2013: {error}")
    return load_fer2013()


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """The folder in which Gradio keeps uploads during this test."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


@pytest.fixture
def two_faces(uploads) -> dict:
    """Gradio's description of a photo of two faces, the larger one at the right."""
    small, large = Image.open(ASTRONAUT), Image.open(HOPPER)
    both = Image.new("RGB", (small.width + large.width, max(small.height, large.height)))
    both.paste(small, (0, 0))
    both.paste(large, (small.width, 0))
    both.save(uploads / "two.png")
    return {"path": str(uploads / "two.png"), "orig_name": "two.png"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page with the shipped model and a limit of 1 MB for photos, served in this process: gives its address."""
    import gradio_app
    from page.uploads import Settings

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        demo = gradio_app.build_demo(settings=Settings(max_photo_mb=1))
        _, address, _ = demo.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True)
        yield address
        demo.close(verbose=False)


@pytest.fixture(scope="module")
def client(page, tmp_path_factory):
    """A gradio_client of that page."""
    from gradio_client import Client

    return Client(page, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))
