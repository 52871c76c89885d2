"""The Many photos tab and `/predict_batch`: several files or a folder, a row for every face, none lost to a broken file."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
from PIL import Image

from emotion.images import ImageError
from emotion.labels import EMOTIONS
from page.reading import Reader, Reading
from page.table import FaceRow, PhotoRow, face_picture, summary_html, table_html, write_csv
from page.theme import privacy_html, trouble_html
from page.uploads import answer_folder
from page.working import SCROLL_TO, Clock, clock, working_html

MAX_PHOTOS = 500
"""Files that are taken at once."""

GALLERY_PHOTOS = 60
"""Annotated photos that are shown: the first ones with a face."""

GALLERY_SIDE = 1024
"""Longer side of those in pixels, at most."""

TITLE = "Reading the photos"
TURN = "It starts as soon as it is its turn: the photos of one visitor are read at a time."

WAITING = """
<section class="card hint"><span class="emoji" aria-hidden="true">🗂️</span><h2>The answer appears here</h2>
<p>Add several photos or a whole folder: one table, one file of numbers. A file that cannot be read stops nothing.</p></section>
"""


class BatchTab:
    """Answers for many photos, one after the other. Keeps none."""

    def __init__(self, reader: Reader):
        self.reader = reader

    # A generator for the same reasons as `ClipTab.predict`.
    def predict(self, images: list[gr.FileData]) -> tuple[dict, gr.FileData]:
        """Finds every face of many photos and reads its apparent emotion.

        Args:
            images: up to 500 .jpg, .png, .webp or .bmp files.

        Returns:
            {"photos": [{"file": str, "faces": [as /predict answers them], "ms": float} or {"file": str, "error": str}]} in the
            order of the files, and a CSV file with a row for each face and for each file without one. Before that,
            {"share": 0..1} says how much is done.
        """
        try:
            images, timer, rows, answers = _checked(images), Clock(), [], []
            for row, reading in self._read(images):
                rows.append(row)
                answers.append({"file": row.file, **(reading.to_dict() if reading else {"error": row.error})})
                if timer.is_due():
                    yield {"share": round(len(rows) / len(images), 3)}, None
        except ImageError as error:
            raise gr.Error(str(error), print_exception=False) from None
        path = answer_folder() / "emotions.csv"
        write_csv(path, rows)
        yield {"photos": answers}, gr.FileData(path=str(path)).model_dump()

    def answer(self, files: list | None) -> Iterator[tuple]:
        """Fills the page, again and again while it works: panel, table, gallery, download and buttons.

        Args:
            files: Gradio's descriptions of the uploaded files.
        """
        timer, rows, shown = Clock(), [], []
        try:
            files = _checked(files)
        except ImageError as error:
            yield self._show(trouble_html("These files cannot be used", str(error)))
            return
        folder, finished = answer_folder(), False
        try:
            for row, reading in self._read(files):
                rows.append(row)
                if reading and reading.faces and len(shown) < GALLERY_PHOTOS:
                    shown.append((self._save(reading, folder / str(len(rows))), row.file))
                if timer.is_due():
                    share = len(rows) / len(files)
                    note = f"{len(rows)} of {len(files)} files, {timer.left(share)}".removesuffix(", ")
                    yield self._work(working_html(TITLE, share, note), table_html(rows))
            write_csv(folder / "emotions.csv", rows)
            timing = f"{len(rows):,} {'file' if len(rows) == 1 else 'files'} in {clock(timer.seconds)}"
            yield self._show(summary_html(rows, timing), table_html(rows), shown, folder / "emotions.csv")
            finished = True
        finally:
            if not finished:
                shutil.rmtree(folder, ignore_errors=True)

    def _read(self, files: list) -> Iterator[tuple[PhotoRow, Reading | None]]:
        """Gives each file's row, and what was read from it: None when it could not be."""
        for file in files:
            name = _name(file)
            try:
                reading = self.reader.read(file)
            except ImageError as error:
                yield PhotoRow(name, error=str(error)), None
                continue
            faces = tuple(
                FaceRow(
                    tuple(map(int, face.box)),
                    dict(zip(EMOTIONS, map(float, face.probabilities), strict=True)),
                    self.reader.verdict(face),
                    face_picture(reading.image, face.box),
                )
                for face in reading.faces
            )
            yield PhotoRow(name, faces), reading

    def _save(self, reading: Reading, folder: Path) -> Path:
        picture = Image.fromarray(self.reader.annotated(reading))
        picture.thumbnail((GALLERY_SIDE, GALLERY_SIDE))
        folder.mkdir()
        path = folder / f"{reading.name}-emotions.jpg"
        picture.save(path, quality=88)
        return path

    def _work(self, panel: str, table: str) -> tuple:
        return panel, table, *(gr.skip() for _ in range(5))

    def _show(self, panel: str, table: str = "", shown: list = (), numbers: Path | None = None, working: bool = False) -> tuple:
        """The parts in the order of `outputs`. While it works, nothing can be added; then the table holds these files."""
        return (
            panel,
            table,
            gr.Gallery(list(shown), visible=bool(shown)),
            gr.DownloadButton(value=numbers, visible=numbers is not None),
            gr.Button(visible=working),
            gr.File(interactive=False) if working else gr.File(None, interactive=True),
            gr.UploadButton(interactive=not working),
        )

    def build(self) -> None:
        """Adds the tab's parts to the page that is being built."""
        limits = f"up to {MAX_PHOTOS} at once, up to {self.reader.settings.max_photo_mb:g} MB each"
        privacy = privacy_html(self.reader.settings.keep_folder is not None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=300):
                files = gr.File(label="Photos", file_count="multiple", height=260, elem_id="files")
                folder = gr.UploadButton("Add a whole folder", file_count="directory", elem_id="folder")
                gr.HTML(f'<p class="note">jpg, png, webp or bmp, {limits}.</p>{privacy}')
            with gr.Column(scale=6, min_width=300):
                panel = gr.HTML(WAITING, elem_id="batch-answer")
                cancel = gr.Button("Cancel", visible=False, elem_id="batch-cancel")
                save = gr.DownloadButton("Download the numbers (CSV)", visible=False, size="md")
        table = gr.HTML(elem_id="batch-table")
        gallery = gr.Gallery(
            label="The photos with a box around every face", visible=False, columns=6, height="auto", elem_id="batch-gallery"
        )
        self._connect(files, folder, [panel, table, gallery, save, cancel, files, folder])

    def _connect(self, files: gr.File, folder: gr.UploadButton, outputs: list) -> None:
        panel, cancel = outputs[0], outputs[4]
        quick = {"outputs": outputs, "queue": False, "show_progress": "hidden", "api_visibility": "private"}
        limit = {"concurrency_id": "batch", "concurrency_limit": 1, "show_progress_on": panel, "api_visibility": "private"}
        runs = [
            source.upload(lambda: self._show(working_html(TITLE, 0, TURN), working=True), **quick).then(
                self.answer, source, outputs, preprocess=False, **limit
            )
            for source in (files, folder)
        ]
        cancel.click(None, cancels=runs)
        for run in runs:
            run.success(None, js=SCROLL_TO.format("#batch-answer .card"))
            run.failure(_stopped, **quick)


STOPPED = """
<section class="card hint"><span class="emoji" aria-hidden="true">✋</span><h2>Stopped</h2>
<p>What was read until then is in the table below. Add the files again to read them all.</p></section>
"""


def _stopped() -> tuple:
    """Leaves the table as far as it came."""
    kept = [gr.skip(), gr.skip(), gr.DownloadButton(visible=False), gr.Button(visible=False)]
    return STOPPED, *kept, gr.File(None, interactive=True), gr.UploadButton(interactive=True)


def _checked(files: object) -> list:
    if not isinstance(files, list) or not files:
        raise ImageError(f"The photos must be a list of uploaded files. Received: {files!r:.80}")
    if len(files) > MAX_PHOTOS:
        raise ImageError(f"At most {MAX_PHOTOS} files are taken at once. Received: {len(files):,}. Add them in smaller parts.")
    return files


def _name(file: object) -> str:
    named = file.get("orig_name") or file.get("path") or "" if isinstance(file, dict) else ""
    return Path(named).name or "unnamed"
