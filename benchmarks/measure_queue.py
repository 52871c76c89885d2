"""How many photos should the page read at a time? Several visitors ask at once, under each limit; prints a table.

    python -m benchmarks.measure_queue
"""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file

from benchmarks.speed import photo_640

VISITORS, QUESTIONS = 6, 6


def measure(limit: int, photo: Path) -> tuple[float, float]:
    """Returns photos a second and the median seconds of an answer, with `limit` photos read at a time."""
    import gradio_app

    demo = gradio_app.build_demo().queue(default_concurrency_limit=limit)
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True)
    waits = []

    def ask(client: Client) -> None:
        for _ in range(QUESTIONS):
            start = time.perf_counter()
            client.predict(handle_file(str(photo)), api_name="/predict")
            waits.append(time.perf_counter() - start)

    try:
        clients = [Client(address, verbose=False, download_files=photo.parent) for _ in range(VISITORS)]
        ask(clients[0])
        waits.clear()
        start = time.perf_counter()
        with ThreadPoolExecutor(VISITORS) as pool:
            list(pool.map(ask, clients))
        return len(waits) / (time.perf_counter() - start), float(np.median(waits))
    finally:
        demo.close(verbose=False)


def main() -> None:
    """Measures limits of 1, 2, 4 and 8."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        photo = Path(folder) / "photo.jpg"
        photo.write_bytes(photo_640())
        for limit in (1, 2, 4, 8):
            rate, wait = measure(limit, photo)
            print(f"{limit} at a time: {rate:5.1f} photos a second, an answer takes {1000 * wait:5.0f} ms (median)")


if __name__ == "__main__":
    main()
