"""How long answers take and how much memory the page needs, measured on the shipped model; prints a table, asserts nothing.

    make bench
    python -m benchmarks.speed --write     # also keeps the numbers for README.md (see benchmarks/report.py)
"""

import argparse
import base64
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure_path import measure, unseen
from emotion.clips import create_clip
from emotion.dataset import load_fer2013
from emotion.fer_readers import DatasetError
from emotion.recognizer import DEFAULT_MODEL, EmotionRecognizer
from emotion.video import analyse_video
from page.live import LiveTab
from page.reading import Reader

ROOT = Path(__file__).resolve().parent.parent
PHOTO = ROOT / "tests" / "data" / "astronaut.jpg"


def milliseconds(work: Callable[[], object], repeats: int = 200) -> tuple[float, float]:
    """Returns the median and the 95th percentile duration of a call, after ten calls to warm up."""
    for _ in range(10):
        work()
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        durations.append(1000 * (time.perf_counter() - start))
    return float(np.median(durations)), float(np.percentile(durations, 95))


def photo_640() -> bytes:
    """Returns a 640x480 JPEG of one face."""
    photo = Image.open(PHOTO)
    canvas = Image.new("RGB", (640, 480), (96, 104, 112))
    canvas.paste(photo.resize((480, 480)), (80, 0))
    file = io.BytesIO()
    canvas.save(file, "jpeg", quality=90)
    return file.getvalue()


def frames_a_second(recognizer: EmotionRecognizer, content: bytes, viewers: int, seconds: float = 4) -> float:
    """Returns how many camera frames a second each of several viewers gets answered by the Live tab."""
    tab = LiveTab(Reader(recognizer))
    frame = {"path": None, "url": "data:image/jpeg;base64," + base64.b64encode(content).decode()}
    end = time.perf_counter() + seconds

    def watch(_) -> int:
        session, answered = None, 0
        while time.perf_counter() < end:
            _, session = tab.answer(frame, session)
            answered += 1
        return answered

    with ThreadPoolExecutor(viewers) as pool:
        return sum(pool.map(watch, range(viewers))) / viewers / seconds


def measure_clip(recognizer: EmotionRecognizer, photo: Image.Image, seconds: int = 10) -> float:
    """Returns how long a 640x480 clip of 30 frames a second takes, as a multiple of its length."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with create_clip(path, 30) as writer:
            for i in range(30 * seconds):  # the camera moves slowly to the right
                writer.write(np.asarray(photo.crop((i // 10, 0, i // 10 + 600, 450)).resize((640, 480))), i / 30)
        start = time.perf_counter()
        for _ in analyse_video(path, recognizer, folder):
            pass
        return (time.perf_counter() - start) / seconds


def measure_page() -> dict[str, str]:
    """Starts the page as a user would, asks it once through its API, and reads its memory."""
    from gradio_client import Client, handle_file

    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "gradio_app.py")]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as page:
        try:
            address = next(match[0] for line in page.stdout if (match := re.search(r"http://[\w.:]+", line)))
            Client(address, verbose=False).predict(handle_file(str(PHOTO)), api_name="/predict")
            seconds = time.perf_counter() - start
            status = Path(f"/proc/{page.pid}/status")
            memory = re.search(r"VmRSS:\s+(\d+)", status.read_text())[1] if status.is_file() else None
        finally:
            page.terminate()
    found = {"Page: start to first answer": f"{seconds:.1f} s"}
    return found | ({"Page: resident memory after it": f"{int(memory) / 1024:.0f} MB"} if memory else {})


def measure_all() -> dict[str, str]:
    """Returns what was measured -> the number with its unit."""
    recognizer, content = EmotionRecognizer(), photo_640()
    crop = recognizer.predict(content)[0].crop[None]
    float32 = EmotionRecognizer(DEFAULT_MODEL.with_name("emotion_model.tflite"))
    works = {
        "Photo of 640x480 with one face, file to answer": lambda: recognizer.predict(content),
        "Network alone, one face, float32": lambda: float32.predict_crops(crop),
        "Network alone, one face, int8 (what the page serves)": lambda: recognizer.predict_crops(crop),
    }
    found = {}
    for name, work in works.items():
        median, slow = milliseconds(work)
        found[name] = f"{median:.1f} ms (95th percentile {slow:.1f} ms)"
    for viewers in (1, 2, 4, 8):
        name = "Live: frames answered a second, " + ("one camera" if viewers == 1 else f"each of {viewers} cameras")
        found[name] = f"{frames_a_second(recognizer, content, viewers):.0f}"
    share = measure_clip(recognizer, Image.open(io.BytesIO(content)))
    found["Video: time to analyse a clip of 640x480"] = f"{share:.2f} x its length"
    found |= measure_page()
    try:
        usage, split = unseen(load_fer2013(), recognizer)
        path = measure(split, recognizer)
    except DatasetError as error:
        print(f"The whole path was not measured: {error}", file=sys.stderr)
        return found
    return found | {
        f"Whole path on the {usage} files: a face is found in": f"{path.answered:.1%}",
        "Whole path: accuracy where a face is found (the same pixels without detection)":
            f"{path.path_answered:.1%} ({path.direct_answered:.1%})",
    }  # fmt: skip


def processor() -> str:
    """Names the machine as a reader needs it: cores, processor, Python."""
    path = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", path.read_text()) if path.is_file() else None
    name = model[1] if model else platform.machine()
    return f"Measured on {os.cpu_count()} cores ({name}), Python {platform.python_version()}."


def main() -> None:
    """Measures, prints, and keeps the numbers where asked to."""
    parser = argparse.ArgumentParser(description="Measure the speed of answers and the memory of the page.")
    parser.add_argument("--write", action="store_true", help="keep the numbers in saved_models/speed.json")
    options = parser.parse_args()
    results = measure_all()
    for name, value in results.items():
        print(f"{name:<80} {value}")
    if options.write:
        text = json.dumps({"machine": processor(), "results": results}, indent=2) + "\n"
        (ROOT / "saved_models" / "speed.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
