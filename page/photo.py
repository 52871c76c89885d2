"""The Photo tab and `/predict`: one photo, every face in it, and why."""

import json
from pathlib import Path

import gradio as gr

from emotion.drawing import enlargement
from emotion.explain import MAX_TURN, cues, turn
from emotion.images import ImageError
from page.reading import Reader, Reading, View
from page.theme import NAME_EXAMPLES, SCROLL_TO_ANSWER, WAITING, cues_html, emoji, privacy_html, trouble_html, verdict_html

EXAMPLES = [str(Path(__file__).parent.parent / "tests" / "data" / name) for name in ("astronaut.jpg", "grace_hopper.jpg")]

NO_FACE = (
    "The page looks for faces seen from the front or slightly turned, at least 40 pixels wide and not covered. "
    "Try a closer or brighter photo, or turn it upright."
)


class PhotoTab:
    """Answers for one photo. Keeps none: each question reads the uploaded file anew."""

    def __init__(self, reader: Reader):
        self.reader = reader

    def predict(self, image: gr.FileData) -> tuple[gr.FileData, dict]:
        """Finds every face of a photo and reads its apparent emotion.

        Args:
            image: a .jpg, .png, .webp or .bmp file.

        Returns:
            The photo with boxes and captions, and {"faces": [{"box": [x, y, width, height], "emotion": str, "probabilities":
            {emotion: 0..1}, "landmarks": [[x, y], ...]}], "ms": float} in pixels of the photo as it is seen upright.
        """
        try:
            reading = self.reader.read(image)
        except ImageError as error:
            raise gr.Error(str(error), print_exception=False) from None
        path = self.reader.save(reading.name, self.reader.annotated(reading))
        return gr.FileData(path=str(path)).model_dump(), reading.to_dict()

    def answer(self, photo: dict | None, face: int | None, landmarks: bool, heat: bool, four: bool) -> tuple:
        """Fills the answer column: annotated photo, face chooser, verdict and the two downloads.

        Args:
            photo: Gradio's description of the uploaded file; None after the photo was removed.
            face: index of the face to explain; None (or one that is not there) takes the largest.
            landmarks: draw the 468 points.
            heat: draw where the network found its evidence in the explained face.
            four: show the four-emotion view.
        """
        if photo is None:
            return self._show(WAITING)
        try:
            reading = self.reader.read(photo)
        except ImageError as error:
            return self._show(trouble_html("This photo cannot be used", str(error)))
        return self._explain(reading, face, landmarks, heat, four)

    def answer_click(self, photo, face: int | None, landmarks: bool, heat: bool, four: bool, event: gr.SelectData) -> tuple:
        """Explains the face that was clicked in the annotated photo; a click beside every face changes nothing."""
        try:
            reading = self.reader.read(photo)
        except ImageError as error:
            return self._show(trouble_html("This photo cannot be used", str(error)))
        x, y = (position / enlargement(reading.image) for position in event.index)
        for i, (left, top, width, height) in enumerate(each.box for each in reading.faces):
            if left <= x < left + width and top <= y < top + height:
                face = i
        return self._explain(reading, face, landmarks, heat, four)

    def _explain(self, reading: Reading, face: int | None, landmarks: bool, heat: bool, four: bool) -> tuple:
        if not reading.faces:
            return self._show(trouble_html("No face found", NO_FACE))
        if face is None or face >= len(reading.faces):
            face = max(range(len(reading.faces)), key=lambda i: reading.faces[i].box[2] * reading.faces[i].box[3])
        verdicts = [self.reader.verdict(each, four) for each in reading.faces]
        annotated = self.reader.save(reading.name, self.reader.annotated(reading, View(face, landmarks, heat, four)))
        data = annotated.with_suffix(".json")
        data.write_text(json.dumps(reading.to_dict(), indent=1), encoding="utf-8")
        count = "1 face" if len(reading.faces) == 1 else f"{len(reading.faces)} faces"
        points = reading.faces[face].landmarks
        shows = cues_html(cues(points), turned=abs(turn(points)) > MAX_TURN)
        panel = verdict_html(verdicts[face], f"{count} read in {reading.ms:.0f} ms", shows)
        choices = [(f"{i + 1} {emoji(verdict)} {verdict.label}", i) for i, verdict in enumerate(verdicts)]
        return self._show(panel, annotated, data, choices, face)

    def _show(self, panel: str, annotated: Path | None = None, data: Path | None = None, choices=(), face=None) -> tuple:
        found = annotated is not None
        return (
            gr.Image(annotated, visible=found),
            gr.Radio(list(choices), value=face, visible=len(choices) > 1),
            panel,
            gr.Row(visible=found),
            gr.Row(visible=found),
            gr.DownloadButton(value=annotated),
            gr.DownloadButton(value=data),
        )

    def build(self, demo: gr.Blocks) -> None:
        """Adds the tab's parts to the page that is being built."""
        formats = f"jpg, png, webp or bmp, up to {self.reader.settings.max_photo_mb:g} MB"
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
                gr.HTML(privacy_html(self.reader.settings.keep_folder is not None))
            with gr.Column(scale=6, min_width=300):
                answer = self._build_answer()
        annotated, faces, panel, options, toggles, files, downloads = answer
        # preprocess=False hands over the uploaded file itself: Gradio would decode it before it was checked.
        shown = [annotated, faces, panel, options, files, *downloads]
        how = {"outputs": shown, "preprocess": False, "api_visibility": "private", "show_progress_on": panel}
        asked = [photo, faces, *toggles]
        largest_face = gr.State(None)
        photo.change(self.answer, [photo, largest_face, *toggles], **how).then(None, js=SCROLL_TO_ANSWER)
        gr.on([faces.input, *(toggle.input for toggle in toggles)], self.answer, asked, **how)
        annotated.select(self.answer_click, asked, **how)
        demo.load(None, js=NAME_EXAMPLES)

    def _build_answer(self) -> tuple:
        annotated = gr.Image(
            show_label=False,
            alt_text="Your photo with a box around every face",
            interactive=False,
            visible=False,
            buttons=["fullscreen"],
            elem_id="annotated",
        )
        with gr.Row(visible=False, elem_id="options") as options:
            landmarks = gr.Checkbox(label="Show the 468 landmarks", container=False, min_width=180)
            heat = gr.Checkbox(
                label="Where the model looked",
                container=False,
                min_width=180,
                visible=getattr(self.reader.recognizer, "gives_evidence", False),
            )
            four = gr.Checkbox(label="Only four emotions", container=False, min_width=160)
        faces = gr.Radio(label="Choose a face, here or in the photo", visible=False, elem_id="faces")
        panel = gr.HTML(WAITING, elem_id="answer")
        with gr.Row(visible=False) as files:
            save_photo = gr.DownloadButton("Download the photo", size="md", min_width=200)
            save_data = gr.DownloadButton("Download the numbers (JSON)", size="md", min_width=200)
        return annotated, faces, panel, options, (landmarks, heat, four), files, (save_photo, save_data)
