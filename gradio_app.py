"""The web page: add a photo, read the apparent emotion of every face in it.

    python gradio_app.py                  # http://127.0.0.1:7860
    python gradio_app.py --port 8000 --share
    python gradio_app.py --help

Importing this module launches nothing. Handlers come first, then the page that calls them, then the command line.
"""

import argparse
import base64
import binascii
import json
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from emotion.drawing import Tag, annotate, enlargement
from emotion.images import ImageError, read_image
from emotion.labels import EMOTIONS
from emotion.recognizer import EmotionRecognizer, ModelError
from emotion.verdict import NOT_SURE_BELOW, Verdict, judge, percent
from gradio_theme import (
    CSS,
    PRIVACY,
    SCROLL_TO_ANSWER,
    WAITING,
    WELCOME,
    about_html,
    emoji,
    look,
    theme,
    trouble_html,
    verdict_html,
)

HOST, PORT = "127.0.0.1", 7860
MAX_FILE_MB = 10
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")  # how JPEG, PNG and BMP files begin, whatever their name
KEEP_MINUTES = 15  # how long Gradio's copies of a photo stay in the page's private temporary folder
EXAMPLES = [str(Path(__file__).parent / "tests" / "data" / name) for name in ("astronaut.jpg", "grace_hopper.jpg")]

NO_FACE = (
    "The page looks for faces seen from the front or slightly turned, at least 40 pixels wide and not covered. "
    "Try a closer or brighter photo, or turn it upright."
)


@dataclass(frozen=True)
class Reading:
    """What was read from one photo.

    Attributes:
        name: the file's name without its ending, made safe for a new file name.
        image: uint8 RGB (height, width, 3), upright.
        faces: `emotion.recognizer.Face` objects, left to right.
        ms: milliseconds from the file's bytes to the probabilities.
    """

    name: str
    image: np.ndarray
    faces: list
    ms: float

    def to_dict(self) -> dict:
        """Returns the JSON that `/predict` answers."""
        return {"faces": [face.to_dict() for face in self.faces], "ms": round(self.ms, 1)}


class Handlers:
    """Everything that the page and its API can be asked. Keeps no photo: each question reads the uploaded file anew."""

    def __init__(self, recognizer: Any, max_file_mb: float = MAX_FILE_MB):
        """`recognizer` has `predict(image) -> list[Face]` and `record`, like `emotion.recognizer.EmotionRecognizer`."""
        self.recognizer = recognizer
        self.max_file_mb = max_file_mb

    def predict(self, image: gr.FileData) -> tuple[gr.FileData, dict]:
        """Finds every face of a photo and reads its apparent emotion.

        Args:
            image: a .jpg, .png, .webp or .bmp file.

        Returns:
            The photo with boxes and captions, and {"faces": [{"box": [x, y, width, height], "emotion": str, "probabilities":
            {emotion: 0..1}, "landmarks": [[x, y], ...]}], "ms": float} in pixels of the photo as it is seen upright.
        """
        try:
            reading = self._read(image)
        except ImageError as error:
            raise gr.Error(str(error), print_exception=False) from None
        path = self._save(reading.name, self._annotated(reading))
        return gr.FileData(path=str(path)).model_dump(), reading.to_dict()

    def answer(self, photo: dict | None, face: int | None, landmarks: bool, four: bool) -> tuple:
        """Fills the answer column: annotated photo, face chooser, verdict and the two downloads.

        Args:
            photo: Gradio's description of the uploaded file; None after the photo was removed.
            face: index of the face to explain; None (or one that is not there) takes the largest.
            landmarks: draw the 468 points.
            four: show the four-emotion view.
        """
        if photo is None:
            return self._show(WAITING)
        try:
            reading = self._read(photo)
        except ImageError as error:
            return self._show(trouble_html("This photo cannot be used", str(error)))
        return self._explain(reading, face, landmarks, four)

    def answer_click(self, photo: dict | None, face: int | None, landmarks: bool, four: bool, event: gr.SelectData) -> tuple:
        """Explains the face that was clicked in the annotated photo; a click beside every face changes nothing."""
        try:
            reading = self._read(photo)
        except ImageError as error:
            return self._show(trouble_html("This photo cannot be used", str(error)))
        x, y = (position / enlargement(reading.image) for position in event.index)
        for i, (left, top, width, height) in enumerate(each.box for each in reading.faces):
            if left <= x < left + width and top <= y < top + height:
                face = i
        return self._explain(reading, face, landmarks, four)

    def _explain(self, reading: Reading, face: int | None, landmarks: bool, four: bool) -> tuple:
        if not reading.faces:
            return self._show(trouble_html("No face found", NO_FACE))
        if face is None or face >= len(reading.faces):
            face = max(range(len(reading.faces)), key=lambda i: reading.faces[i].box[2] * reading.faces[i].box[3])
        verdicts = [self._verdict(each, four) for each in reading.faces]
        annotated = self._save(reading.name, self._annotated(reading, face, landmarks, four))
        data = annotated.with_suffix(".json")
        data.write_text(json.dumps(reading.to_dict(), indent=1), encoding="utf-8")
        count = "1 face" if len(reading.faces) == 1 else f"{len(reading.faces)} faces"
        panel = verdict_html(verdicts[face], f"{count} read in {reading.ms:.0f} ms")
        choices = [(f"{i + 1} {emoji(verdict)} {verdict.label}", i) for i, verdict in enumerate(verdicts)]
        return self._show(panel, annotated, data, choices, face)

    def _read(self, photo: dict) -> Reading:
        content = uploaded_bytes(photo, self.max_file_mb)
        start = time.perf_counter()
        image = read_image(content)
        faces = self.recognizer.predict(image)
        ms = 1000 * (time.perf_counter() - start)
        stem = Path(photo.get("orig_name") or photo.get("path") or "").stem
        return Reading(re.sub(r"[^\w-]+", "-", stem)[:60].strip("-") or "photo", image, faces, ms)

    def _verdict(self, face: Any, four: bool) -> Verdict:
        probabilities = dict(zip(EMOTIONS, map(float, face.probabilities), strict=True))
        return judge(probabilities, not_sure_below=self.recognizer.record.get("not_sure_below", NOT_SURE_BELOW), four=four)

    def _annotated(self, reading: Reading, chosen: int | None = None, landmarks=False, four=False) -> np.ndarray:
        tags = []
        for i, face in enumerate(reading.faces):
            verdict = self._verdict(face, four)
            number = f"{i + 1} " if len(reading.faces) > 1 else ""
            certainty = "" if verdict.confidence is None else f" {percent(verdict.confidence)}"
            captions = (number + verdict.label + certainty, number + verdict.label, number.strip() or verdict.label)
            emotion = look(verdict.named[0]).emotion if verdict.named else "not sure"
            tags.append(Tag(face.box, captions, emotion, face.landmarks if landmarks else None, chosen == i))
        return annotate(reading.image, tags)

    def _save(self, name: str, image: np.ndarray) -> Path:
        # Inside Gradio's upload folder, so that it is deleted after KEEP_MINUTES like the upload itself.
        folder = Path(get_upload_folder()) / secrets.token_hex(8)
        folder.mkdir(parents=True)
        Image.fromarray(image).save(folder / f"{name}-emotions.jpg", quality=92)
        return folder / f"{name}-emotions.jpg"

    def _show(self, panel: str, annotated: Path | None = None, data: Path | None = None, choices=(), face=None) -> tuple:
        found = annotated is not None
        return (
            gr.Image(annotated, visible=found),
            gr.Radio(list(choices), value=face, visible=len(choices) > 1),
            panel,
            gr.Column(visible=found),
            gr.DownloadButton(value=annotated),
            gr.DownloadButton(value=data),
        )


def uploaded_bytes(photo: dict, max_file_mb: float) -> bytes:
    """Returns an upload's bytes after every check that needs no decoding.

    Args:
        photo: Gradio's description of a file: "path" of the upload, or "url" with base64 data ("data:image/png;base64,...").
        max_file_mb: largest size in megabytes (1e6 bytes).

    Raises:
        ImageError: the upload is gone, too large or not of an accepted type; the message says what to do.
    """
    if not isinstance(photo, dict):
        raise ImageError(f"The image must be an uploaded file (gradio_client's handle_file). Received: {photo!r:.80}")
    url, path = photo.get("url") or "", Path(photo.get("path") or "").resolve()
    if url.startswith("data:") and not photo.get("path"):
        try:
            content = base64.b64decode(url.partition(",")[2], validate=True)
        except binascii.Error:
            raise ImageError("The data URL holds no valid base64. Encode the bytes of the image file again.") from None
        size = len(content)
    else:
        # Gradio passes on any path that a client names; only what was uploaded may be read.
        if not (path.is_relative_to(Path(get_upload_folder()).resolve()) and path.is_file()):
            raise ImageError(f"The photo is gone: uploads are deleted after {KEEP_MINUTES} minutes. Add it again.")
        size = path.stat().st_size
        content = path.read_bytes() if size <= max_file_mb * 1e6 else b""
    if size > max_file_mb * 1e6:
        limit = f"at most {max_file_mb:g} MB are accepted"
        raise ImageError(f"The file has {size / 1e6:.1f} MB; {limit}. Make the photo smaller and add it again.")
    if not (content.startswith(SIGNATURES) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")):
        raise ImageError("The file is not a photo of a type this page reads. Save it as .jpg, .png, .webp or .bmp and add that.")
    return content


def build_demo(recognizer: Any = None, max_file_mb: float = MAX_FILE_MB) -> gr.Blocks:
    """Builds the page without launching it.

    Args:
        recognizer: has `predict(image) -> list[Face]` and `record`; None loads the shipped model.
        max_file_mb: larger photos are refused, in megabytes (1e6 bytes).

    Raises:
        ModelError: the shipped model is missing or broken.
    """
    handlers = Handlers(recognizer or EmotionRecognizer(), max_file_mb)
    # Looks every minute for files that are too old. Whatever is left goes when the page stops.
    with gr.Blocks(title="Facial emotion", analytics_enabled=False, delete_cache=(60, 60 * KEEP_MINUTES)) as demo:
        gr.HTML(WELCOME, elem_classes="prose")
        with gr.Tabs():
            with gr.Tab("Photo", id="photo"):
                photo_tab(handlers)
            with gr.Tab("About", id="about"):
                gr.HTML(about_html(handlers.recognizer.record, KEEP_MINUTES))
        gr.api(handlers.predict, api_name="predict")
    return demo


def photo_tab(handlers: Handlers) -> None:
    """Adds the Photo tab to the page that is being built."""
    formats = f"jpg, png, webp or bmp, up to {handlers.max_file_mb:g} MB"
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            photo = gr.Image(
                label="Photo",
                sources=["upload", "webcam", "clipboard"],
                type="filepath",
                image_mode=None,
                height=300,
                placeholder=f"# Drop a photo here\nor click to choose one\n\n{formats}",
                elem_id="photo",
            )
            examples = [[example] for example in EXAMPLES]
            gr.Examples(examples, photo, label="Or try one of these", elem_id="examples", api_visibility="private")
            gr.HTML(PRIVACY.format(minutes=KEEP_MINUTES))
        with gr.Column(scale=6, min_width=300):
            annotated = gr.Image(
                show_label=False,
                alt_text="Your photo with a box around every face",
                interactive=False,
                visible=False,
                buttons=["fullscreen"],
                elem_id="annotated",
            )
            faces = gr.Radio(label="Choose a face, here or in the photo", visible=False, elem_id="faces")
            panel = gr.HTML(WAITING, elem_id="answer")
            with gr.Column(visible=False) as more:
                with gr.Row():
                    landmarks = gr.Checkbox(label="Show the 468 landmarks", container=False, min_width=200)
                    four = gr.Checkbox(label="Only four emotions", container=False, min_width=200)
                with gr.Row():
                    save_photo = gr.DownloadButton("Download the photo", size="md", min_width=200)
                    save_data = gr.DownloadButton("Download the numbers (JSON)", size="md", min_width=200)
    shown = [annotated, faces, panel, more, save_photo, save_data]
    # preprocess=False hands over the uploaded file itself: Gradio would decode it before it was checked.
    how = {"outputs": shown, "preprocess": False, "api_visibility": "private", "show_progress_on": panel}
    asked = [photo, faces, landmarks, four]
    largest_face = gr.State(None)
    photo.change(handlers.answer, [photo, largest_face, landmarks, four], **how).then(None, js=SCROLL_TO_ANSWER)
    gr.on([faces.input, landmarks.input, four.input], handlers.answer, asked, **how)
    annotated.select(handlers.answer_click, asked, **how)


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
    parser.add_argument("--max-file-size", type=float, default=MAX_FILE_MB, metavar="MB", help="largest photo (%(default)s MB)")
    options = parser.parse_args(arguments)
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
    demo = build_demo(max_file_mb=options.max_file_size)
    if options.share:
        print("Asking for a public link. Everyone who has it can use this page; their photos pass through Gradio's servers.")
    _, address, public = demo.launch(
        server_name=options.host,
        server_port=options.port,
        share=options.share,
        # Stops what would fill the disk; below that, the sentence of uploaded_bytes helps more than Gradio's message.
        max_file_size=int(4 * options.max_file_size * 2**20),
        theme=theme(),
        css=CSS,
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
