"""The Live tab: the webcam's picture with boxes drawn over it in the browser, smoothed answers beside it. Frames are never kept.

Only frames go to the server and only words and numbers come back: the picture on the screen is the camera's own and never waits
for an answer.
"""

import json
import time
from collections import deque
from dataclasses import dataclass, field
from html import escape

import gradio as gr

from emotion.drawing import text_colour
from emotion.images import ImageError, read_image
from emotion.tracking import FaceTracker, TrackedFace
from emotion.verdict import Verdict, percent
from emotion.video import shrink
from page.reading import Reader
from page.theme import bars_html, emoji, look, trouble_html
from page.uploads import photo_bytes

FRAMES_EVERY = 0.05
"""Seconds between the frames that the browser sends. A frame that comes while another is read replaces the one that waits."""

VIEWERS = 8
"""Cameras at the same time; the next one waits until one stops. They share what the computer can read (benchmarks/speed.py)."""

SECONDS_OF_RATE = 2.0


@dataclass
class Session:
    """What is remembered of one visitor's camera while it runs: his faces' tracks, and when the last answers were given."""

    tracker: FaceTracker = field(default_factory=FaceTracker)
    answers: deque = field(default_factory=deque)

    def rate(self, now: float) -> float:
        """Counts one more answer; returns how many a second there were lately."""
        self.answers.append(now)
        while now - self.answers[0] > SECONDS_OF_RATE:
            self.answers.popleft()
        passed = now - self.answers[0]
        return (len(self.answers) - 1) / passed if passed else 0.0


class LiveTab:
    """Answers for one camera frame after another."""

    def __init__(self, reader: Reader):
        self.reader = reader

    def answer(self, frame: dict | None, session: Session | None) -> tuple[str, Session | None]:
        """Reads one frame.

        Args:
            frame: Gradio's description of a JPEG, as a data URL; None when the camera stops.
            session: of the frames before; None starts anew.

        Returns:
            The panel as HTML; boxes for the browser to draw stand in its `data-faces`, as fractions of the picture's sides.
        """
        if frame is None:
            return READY, None
        session = session or Session()
        try:
            picture = shrink(read_image(photo_bytes(frame, self.reader.settings.max_photo_mb)))
        except ImageError as error:
            return trouble_html("This frame cannot be used", str(error)), session
        faces = session.tracker.update(self.reader.recognizer.predict(picture), time.monotonic())
        rate = session.rate(time.monotonic())
        return self._panel(faces, picture.shape[1], picture.shape[0], rate), session

    def _panel(self, faces: list[TrackedFace], width: int, height: int, rate: float) -> str:
        # The largest face is the one that is sitting at the camera: its bars are shown.
        faces = sorted(faces, key=lambda face: -face.box[2] * face.box[3])
        verdicts = [self.reader.verdict(face) for face in faces]
        boxes = [_drawing(face, verdict, width, height) for face, verdict in zip(faces, verdicts, strict=True)]
        data = escape(json.dumps(boxes), quote=True)
        timing = f'<p class="timing">{rate:.0f} answers a second</p>'
        if not faces:
            return (
                f'<section class="card" data-faces="{data}"><h2>No face in view</h2>'
                f"<p>Look towards the camera, with light on your face.</p>{timing}</section>"
            )
        others = "".join(f"<li>{escape(_words(verdict))}</li>" for verdict in verdicts[1:])
        if others:
            others = f'<p class="note">Other faces, by size:</p><ul class="others">{others}</ul>'
        headline, bars = escape(_words(verdicts[0])), bars_html(verdicts[0], ordered=False)
        return f'<section class="card" data-faces="{data}"><h2>{headline}</h2>{bars}{others}{timing}</section>'

    def build(self, demo: gr.Blocks) -> None:
        """Adds the tab's parts to the page that is being built."""
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=300):
                notice = gr.HTML(NOTICE)
                start = gr.Button("Start the camera", variant="primary", elem_id="live-start")
                camera = gr.Image(
                    label="Camera",
                    sources=["webcam"],
                    streaming=True,
                    visible=False,
                    webcam_options=gr.WebcamOptions(mirror=True, constraints=CAMERA),
                    elem_id="live",
                )
                stop = gr.Button("Stop the camera", visible=False, elem_id="live-stop")
            with gr.Column(scale=5, min_width=300):
                panel = gr.HTML(READY, elem_id="live-answer")
        session = gr.State(None)
        shown = [notice, start, camera, stop, panel, session]
        private = {"api_visibility": "private", "show_progress": "hidden"}
        start.click(lambda: _switch(True), outputs=shown, **private).then(None, js=OPEN_CAMERA)
        # The camera is let go in the browser first: a hidden component would keep its light on.
        stop.click(None, js=CLOSE_CAMERA).then(lambda: _switch(False), outputs=shown, **private)
        camera.stream(
            self.answer,
            [camera, session],
            [panel, session],
            preprocess=False,
            stream_every=FRAMES_EVERY,
            concurrency_limit=VIEWERS,
            **private,
        )
        demo.load(None, js=DRAW_BOXES)


def _switch(on: bool) -> tuple:
    visible = [gr.update(visible=not on), gr.update(visible=not on), gr.update(visible=on, value=None), gr.update(visible=on)]
    return (*visible, READY, None)


def _words(verdict: Verdict) -> str:
    certainty = "" if verdict.confidence is None else f" {percent(verdict.confidence)}"
    return f"{emoji(verdict)} {verdict.label.capitalize()}{certainty}"


def _drawing(face: TrackedFace, verdict: Verdict, width: int, height: int) -> dict:
    x, y, w, h = face.box
    colour = look(verdict.named[0] if verdict.named else "neutral").colour
    ink = "#" + bytes(text_colour(tuple(bytes.fromhex(colour.removeprefix("#"))))).hex()
    box = [round(x / width, 4), round(y / height, 4), round(w / width, 4), round(h / height, 4)]
    return {"box": box, "text": _words(verdict), "colour": colour, "ink": ink}


CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "facingMode": "user"}}

NOTICE = """
<section class="card"><h2>Your camera, answered as you move</h2>
<p>Nothing opens before you press the button, and your browser asks you first. Frames go to the computer that runs this page, are
read there and thrown away at once; none is written to a disk.</p>
<p>The answer follows your face with a short delay, on purpose: a single frame often misleads.</p></section>
"""

READY = """
<section class="card hint" data-faces="[]"><span class="emoji" aria-hidden="true">🎥</span><h2>The answer appears here</h2>
<p>Start the camera and look towards it.</p></section>
"""

OPEN_CAMERA = """async () => {
    const until = async (find) => {
        for (let tries = 0; tries < 100; tries++) {
            const found = find();
            if (found) return found;
            await new Promise((resolve) => setTimeout(resolve, 100));
        }
    };
    const inside = (selector) => document.querySelector("#live " + selector);
    (await until(() => inside("[title='grant webcam access'] button")))?.click();
    await until(() => inside("video")?.videoWidth);
    (await until(() => inside("button.capture-button")))?.click();
}"""
"""Presses Gradio's two buttons, "access webcam" and "record", once the visitor has pressed ours."""

CLOSE_CAMERA = """() => {
    document.querySelector("#live button.capture-button")?.click();
    document.querySelector("#live video")?.srcObject?.getTracks().forEach((track) => track.stop());
}"""
"""Ends the stream of frames and lets go of the camera."""

DRAW_BOXES = """() => {
    let drawn = null;
    const draw = () => {
        requestAnimationFrame(draw);
        const video = document.querySelector("#live video");
        const faces = document.querySelector("#live-answer [data-faces]")?.dataset.faces ?? "[]";
        if (!video?.videoWidth) return;
        let canvas = video.parentElement.querySelector("canvas.boxes");
        if (!canvas) {
            canvas = video.parentElement.appendChild(document.createElement("canvas"));
            canvas.className = "boxes";
            canvas.setAttribute("aria-hidden", "true");
        }
        const [width, height] = [video.clientWidth, video.clientHeight];
        const state = [faces, width, height].join();
        if (state === drawn) return;
        drawn = state;
        const density = window.devicePixelRatio || 1;
        Object.assign(canvas.style, {
            left: video.offsetLeft + "px", top: video.offsetTop + "px", width: width + "px", height: height + "px" });
        [canvas.width, canvas.height] = [width * density, height * density];
        const ink = canvas.getContext("2d");
        ink.scale(density, density);
        // The video is fitted into its element with bars at two sides.
        const scale = Math.min(width / video.videoWidth, height / video.videoHeight);
        const [w, h] = [video.videoWidth * scale, video.videoHeight * scale];
        const [left, top] = [(width - w) / 2, (height - h) / 2];
        for (const face of JSON.parse(faces)) {
            const [x, y, side, tall] = [left + face.box[0] * w, top + face.box[1] * h, face.box[2] * w, face.box[3] * h];
            ink.lineWidth = 5; ink.strokeStyle = "#141414"; ink.strokeRect(x, y, side, tall);
            ink.lineWidth = 3; ink.strokeStyle = face.colour; ink.strokeRect(x, y, side, tall);
            ink.font = "600 16px system-ui, sans-serif";
            const label = ink.measureText(face.text).width + 16;
            const above = Math.max(y - 28, 0);
            ink.fillStyle = face.colour; ink.fillRect(x - 1, above, label, 28);
            ink.fillStyle = face.ink; ink.fillText(face.text, x + 7, above + 20);
        }
    };
    draw();
}"""
"""Draws the boxes of the newest answer over the camera's picture."""
