"""What the tests of the page share: photos, scripted answers, bad files, and the running page."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from emotion.clips import create_clip
from emotion.faces import FaceFinder, read_image
from emotion.labels import EMOTIONS
from emotion.recognizer import Face

ROOT = Path(__file__).resolve().parent.parent
ASTRONAUT = ROOT / "tests" / "data" / "astronaut.jpg"
HOPPER = ROOT / "tests" / "data" / "grace_hopper.jpg"

REFUSALS = {
    "animation.gif": r"not a photo of a type .* Save it as \.jpg, \.png, \.webp or \.bmp",
    "text.jpg": r"not a photo of a type .* Save it as \.jpg, \.png, \.webp or \.bmp",
    "empty.png": r"not a photo of a type .* Save it as \.jpg, \.png, \.webp or \.bmp",
    "cut.jpg": r"save it again as JPEG or PNG",
    "large.png": r"has 1\.5 MB; at most 1 MB .* Make the photo smaller",
}


class ScriptedRecognizer:
    """Finds faces for real and gives them, from left to right, the probabilities that the test chose, and one `evidence`."""

    def __init__(self, *rows: dict[str, float], evidence: np.ndarray | None = None, **record):
        self.rows, self.record, self.evidence, self.finder = rows, record, evidence, FaceFinder()
        self.gives_evidence = evidence is not None

    def predict(self, image) -> list[Face]:
        found = self.finder.find(read_image(image))
        rows = [np.array([row.get(emotion, 0) for emotion in EMOTIONS], np.float32) for row in self.rows]
        return [
            Face(f.box, f.score, f.landmarks, f.crop, row, evidence=self.evidence) for f, row in zip(found, rows, strict=False)
        ]


def write_refused(folder: Path, kind: str) -> Path:
    """Writes a file that the page must refuse and returns its path."""
    if kind == "animation.gif":
        Image.open(ASTRONAUT).save(folder / kind)
    elif kind == "text.jpg":
        (folder / kind).write_text("not a photo")
    elif kind == "empty.png":
        (folder / kind).touch()
    elif kind == "cut.jpg":
        (folder / kind).write_bytes(ASTRONAUT.read_bytes()[:20_000])
    elif kind == "large.png":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)).save(folder / kind)
    return folder / kind


def film(path: Path, seconds: float, people: tuple[Path, ...] = (ASTRONAUT,), fps: int = 15) -> Path:
    """Writes a clip, 480x360, in which the portraits fade into each other, face onto face, and returns its path."""
    portraits = [_portrait(person).astype(np.float32) for person in people]
    count = round(seconds * fps)
    with create_clip(path, fps) as clip:
        for i in range(count):
            shown, fade = divmod(i / count * len(portraits), 1)
            after = portraits[min(int(shown) + 1, len(portraits) - 1)]
            blend = min(1, max(0, 3 * fade - 2))  # a fade takes the last third of a portrait's time
            picture = (1 - blend) * portraits[int(shown)] + blend * after
            cut = round(60 * i / count)  # the camera comes nearer
            near = picture[cut * 3 // 4 : 360 - cut * 3 // 4, cut : 480 - cut]
            clip.write(cv2.resize(near, (480, 360)).round().astype(np.uint8), i / fps)
    return path


def _portrait(path: Path) -> np.ndarray:
    """Cuts out 480x360 pixels around a photo's first face, which is 120 wide there; without a face, the whole photo."""
    image = read_image(path)
    faces = FaceFinder().find(image)
    if not faces:
        return cv2.resize(image, (480, 360))
    x, y, width, height = faces[0].box
    scale = 120 / width
    place = np.float32([[scale, 0, 240 - scale * (x + width / 2)], [0, scale, 180 - scale * (y + height / 2)]])
    return cv2.warpAffine(image, place, (480, 360), borderMode=cv2.BORDER_REPLICATE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_page(*options: str, **environment: str) -> Iterator[tuple[str, list[str]]]:
    """Runs `python gradio_app.py` on a free port; gives its address and the lines it has printed; stops it at the end."""
    command = [sys.executable, "-u", str(ROOT / "gradio_app.py"), "--port", str(free_port()), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env={**os.environ, **environment}, **pipes)
    said, started = [], threading.Event()

    def listen():  # to the end, since a full pipe would stop the page
        for line in process.stdout:
            said.append(line)
            if "The page is at" in line:
                started.set()
        started.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        started.wait(120)
        found = re.search(r"The page is at (\S+)", "".join(said))
        assert found, "".join(said)
        yield found[1], said
    finally:
        process.terminate()
        process.wait(30)
        listener.join(30)
    assert process.returncode == 0, "".join(said)
