"""The web page: add a photo, read the apparent emotion of every face in it.

    python gradio_app.py                  # http://127.0.0.1:7860
    python gradio_app.py --port 8000 --share
    python gradio_app.py --help

Importing this module launches nothing. The tabs and their handlers live in page/; here is the page that holds them and the
command line.
"""

import argparse
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gradio as gr

from emotion.recognizer import EmotionRecognizer, ModelError
from page import table, timeline, working
from page.about import about_html
from page.batch import BatchTab
from page.clip import ClipTab
from page.live import LiveTab
from page.photo import PhotoTab
from page.reading import Reader
from page.theme import CSS, KEPT, WELCOME, theme
from page.uploads import KEEP_MINUTES, Settings

HOST, PORT = "127.0.0.1", 7860


def build_demo(recognizer: Any = None, settings: Settings | None = None) -> gr.Blocks:
    """Builds the page without launching it.

    Args:
        recognizer: has `predict(image) -> list[Face]` and `record`; None loads the shipped model.
        settings: the operator's limits and wishes; None takes the usual ones.

    Raises:
        ModelError: the shipped model is missing or broken.
    """
    reader = Reader(recognizer or EmotionRecognizer(), settings or Settings())
    photo, clip, many = PhotoTab(reader), ClipTab(reader), BatchTab(reader)
    # Looks every minute for files that are too old. Whatever is left goes when the page stops.
    with gr.Blocks(title="Facial emotion", analytics_enabled=False, delete_cache=(60, 60 * KEEP_MINUTES)) as demo:
        gr.HTML(WELCOME, elem_classes="prose")
        if reader.settings.keep_folder:
            gr.HTML(KEPT)
        with gr.Tabs():
            with gr.Tab("Photo", id="photo"):
                photo.build(demo)
            with gr.Tab("Live", id="live"):
                LiveTab(reader).build(demo)
            with gr.Tab("Video", id="video"):
                clip.build()
            with gr.Tab("Many photos", id="batch"):
                many.build()
            with gr.Tab("About", id="about"):
                gr.HTML(about_html(reader.recognizer.record, reader.settings))
        gr.api(photo.predict, api_name="predict")
        # Long work: one clip and one pile of photos at a time, so that the other tabs still answer. The tabs share these limits.
        gr.api(clip.predict, api_name="predict_video", concurrency_id="clip", concurrency_limit=1)
        gr.api(many.predict, api_name="predict_batch", concurrency_id="batch", concurrency_limit=1)
    # On two cores, two at a time are answered fastest (benchmarks/measure_queue.py); a longer line than this would wait for long.
    return demo.queue(default_concurrency_limit=2, max_size=100)


def main(arguments: list[str] | None = None) -> None:
    """Serves the page until Ctrl+C.

    Args:
        arguments: command line arguments; None takes those of the process.
    """
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the temporary folder is removed then, too
    with tempfile.TemporaryDirectory(prefix="facial-emotion-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # only this user can read it
        try:
            serve(options)
        except KeyboardInterrupt:
            print("\nStopped.")
        except ModelError as error:
            sys.exit(f"The page cannot start. {error}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; a port that is not free ends the program with a sentence."""
    parser = argparse.ArgumentParser(prog="gradio_app.py", description="Web page that reads the apparent emotion of faces.")
    parser.add_argument("--host", default=HOST, help="address to listen on; 0.0.0.0 opens the page to your network (%(default)s)")
    parser.add_argument("--port", type=int, help=f"port to listen on ({PORT} or the next free one)")
    parser.add_argument("--share", action="store_true", help="also make a public link through Gradio's servers")
    limit = Settings.max_photo_mb
    parser.add_argument("--max-file-size", type=float, default=limit, metavar="MB", help="largest photo (%(default)s MB)")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for this name and password")
    parser.add_argument("--keep-uploads", type=Path, metavar="DIR", help="keep every photo and clip in DIR; the page says so")
    options = parser.parse_args(arguments)
    user, _, password = (options.auth or "").partition(":")
    if options.auth is not None and not (user and password):
        parser.error("--auth must be a name and a password with a colon between them, such as ada:a-long-secret.")
    options.auth = (user, password) if options.auth else None
    if options.keep_uploads and not writable(options.keep_uploads):
        parser.error(f"--keep-uploads must be a folder that this user can write to. Received: {options.keep_uploads}")
    if options.max_file_size <= 0:
        parser.error(f"--max-file-size must be above 0. Received: {options.max_file_size:g}")
    if not is_free(options.host, 0):  # 0 stands for any port
        parser.error(f"--host must be an address of this computer, such as 127.0.0.1 or 0.0.0.0. Received: {options.host}")
    if options.port is None:
        options.port = next((port for port in range(PORT, PORT + 100) if is_free(options.host, port)), None)
        if options.port is None:
            parser.exit(1, f"No port from {PORT} to {PORT + 99} is free on {options.host}. Choose one with --port.\n")
        if options.port != PORT:
            print(f"Port {PORT} is taken, so the page uses {options.port}.")
    elif not is_free(options.host, options.port):
        advice = "Choose another, or leave --port out to take the next free one."
        parser.exit(1, f"Port {options.port} is not free on {options.host}. {advice}\n")
    return options


def writable(folder: Path) -> bool:
    """Makes sure that a folder is there; tells whether files can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def is_free(host: str, port: int) -> bool:
    """Tells whether a page could listen on this port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed counts as free
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
    return True


def serve(options: argparse.Namespace) -> None:
    """Launches the page and waits until it is stopped."""
    demo = build_demo(settings=Settings(max_photo_mb=options.max_file_size, keep_folder=options.keep_uploads))
    if options.keep_uploads:
        print(f"Every photo and clip is kept in {options.keep_uploads}. The page says so.")
    if options.share:
        print("Asking for a public link. Everyone who has it can use this page; their photos pass through Gradio's servers.")
    _, address, public = demo.launch(
        server_name=options.host,
        server_port=options.port,
        share=options.share,
        auth=options.auth,
        # Stops what would fill the disk; below that, the sentence of page/uploads.py helps more than Gradio's message.
        max_file_size=int(max(4 * options.max_file_size, 1.5 * Settings.max_video_mb) * 2**20),
        theme=theme(),
        css=CSS + working.CSS + timeline.CSS + table.CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    if options.share and not public:
        print("There is no public link; the reason is above. The page works on this computer all the same.")
    print(f"The page is at {address.rstrip('/')}  (Ctrl+C stops it)", flush=True)
    try:
        while True:
            time.sleep(3600)
    finally:
        demo.close(verbose=False)


if __name__ == "__main__":
    main()
