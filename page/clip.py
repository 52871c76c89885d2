"""The Video tab and `/predict_video`: a clip, every face in it followed, and what each showed over time."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import gradio as gr

from emotion.images import ImageError
from emotion.video import MAX_SECONDS, VideoError, VideoProgress, analyse_video
from page.reading import Reader
from page.theme import privacy_html, trouble_html
from page.timeline import FOLLOW_THE_CLIP, answer_html, read_lines
from page.uploads import answer_folder, keep, safe_stem, uploaded_path
from page.working import SCROLL_TO, Clock, clock, working_html

TITLE = "Following the faces"
TURN = "It starts as soon as it is its turn: one clip is read at a time."

WAITING = """
<section class="card hint"><span class="emoji" aria-hidden="true">🎬</span><h2>The answer appears here</h2>
<p>Add a clip: every face is followed and its emotions are drawn over time. It starts at once and can be cancelled.</p></section>
"""

STOPPED = """
<section class="card hint"><span class="emoji" aria-hidden="true">✋</span><h2>Stopped</h2>
<p>Nothing of the unfinished answer was kept. Start again, or remove the clip and add another.</p></section>
"""

NO_FACE = (
    "The page looks for faces seen from the front or slightly turned, not covered, and at least a sixteenth of the picture wide. "
    "Try a clip that shows faces closer or in better light."
)


class ClipTab:
    """Answers for one clip. Keeps none."""

    def __init__(self, reader: Reader):
        self.reader = reader

    # A generator, so that Gradio can stop it when the client cancels or goes away. The client sees its last answer, whose
    # types Gradio reads from the annotation.
    def predict(self, clip: gr.FileData) -> tuple[gr.FileData, gr.FileData, dict]:
        """Follows every face of a clip and reads its apparent emotion over time.

        Args:
            clip: a video file of at most 5 minutes.

        Returns:
            The clip with boxes and captions (MP4, H.264, no sound); a CSV file with a row for each face of each analysed frame
            (seconds, face, x, y, width, height, seven probabilities); and {"seconds": float, "frames": int, "analysed": int,
            "faces": {number: {emotion: share of its time in which it was the most probable}}}. Before that, {"share": 0..1}
            says how much is done.
        """
        timer = Clock()
        try:
            with closing(self._read(clip)) as steps:
                for step in steps:
                    if step.result:
                        done = step.result
                        lines = read_lines(done.csv_path, done.seconds)
                        summary = {
                            "seconds": round(done.seconds, 3),
                            "frames": done.frames,
                            "analysed": done.analysed,
                            "faces": {str(face): line.shares for face, line in lines.items()},
                        }
                        yield *(gr.FileData(path=str(p)).model_dump() for p in (done.annotated_path, done.csv_path)), summary
                    elif timer.is_due():
                        yield None, None, {"share": round(step.share, 3)}
        except (ImageError, VideoError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    def answer(self, clip: dict | None) -> Iterator[tuple]:
        """Fills the answer column, again and again while it works: annotated clip, panel, downloads and buttons.

        Args:
            clip: Gradio's description of the uploaded file.
        """
        timer = Clock()
        yield self._work(0.0, "Opening the clip.")
        try:
            with closing(self._read(clip)) as steps:
                for step in steps:
                    if step.result:
                        yield self._done(step, timer)
                    elif timer.is_due():
                        yield self._work(step.share, timer.left(step.share))
        except (ImageError, VideoError) as error:
            yield self._show(trouble_html("This clip cannot be used", str(error)))

    def _read(self, clip: object) -> Iterator[VideoProgress]:
        """Works while it is iterated; closed or failed, it leaves no file behind."""
        path = uploaded_path(clip, "clip")
        size, limit = path.stat().st_size, self.reader.settings.max_video_mb
        if size > limit * 1e6:
            much = f"{size / 1e6:.1f} MB; at most {limit:g} MB are accepted"
            raise ImageError(f"The file has {much}. Cut the clip or export it smaller and add it again.")
        folder, name, taken = answer_folder(), safe_stem(clip) or "clip", False
        try:
            with closing(analyse_video(path, self.reader.recognizer, folder)) as steps:
                for step in steps:
                    if step.result:
                        video = step.result.annotated_path.replace(folder / f"{name}-emotions.mp4")
                        timeline = step.result.csv_path.replace(folder / f"{name}-emotions.csv")
                        step = replace(step, result=replace(step.result, annotated_path=video, csv_path=timeline))
                        keep(self.reader.settings.keep_folder, path, name + path.suffix)
                    yield step
            taken = True
        finally:
            if not taken:
                shutil.rmtree(folder, ignore_errors=True)

    def _done(self, step: VideoProgress, timer: Clock) -> tuple:
        result = step.result
        lines = read_lines(result.csv_path, result.seconds)
        if not lines:
            shutil.rmtree(result.annotated_path.parent, ignore_errors=True)
            return self._show(trouble_html("No face found", NO_FACE))
        timing = f"{clock(result.seconds)} of film, {result.analysed:,} pictures of it read in {clock(timer.seconds)}"
        return self._show(answer_html(lines, result, timing), result.annotated_path, result.csv_path)

    def _work(self, share: float, note: str) -> tuple:
        return gr.skip(), working_html(TITLE, share, note), *(gr.skip() for _ in range(5))

    def _show(self, panel: str, annotated: Path | None = None, timeline: Path | None = None, **buttons: bool) -> tuple:
        """The parts in the order of `outputs`; `buttons`: whether "cancel" and "again" are visible."""
        found = annotated is not None
        return (
            gr.Video(annotated, visible=found),
            panel,
            gr.Row(visible=found),
            gr.DownloadButton(value=annotated),
            gr.DownloadButton(value=timeline),
            gr.Button(visible=buttons.get("cancel", False)),
            gr.Button(visible=buttons.get("again", False)),
        )

    def build(self) -> None:
        """Adds the tab's parts to the page that is being built."""
        limits = f"up to {MAX_SECONDS / 60:.0f} minutes and {self.reader.settings.max_video_mb:g} MB"
        privacy = privacy_html(self.reader.settings.keep_folder is not None).replace("Photos", "Clips")
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=300):
                clip = gr.Video(
                    label="Clip",
                    sources=["upload", "webcam"],
                    include_audio=False,
                    height=300,
                    elem_id="clip",
                )
                again = gr.Button("Start again", variant="primary", visible=False)
                gr.HTML(f'<p class="note">MP4, MOV, WebM, MKV or AVI, {limits}. The sound is not used.</p>{privacy}')
            with gr.Column(scale=6, min_width=300):
                annotated = gr.Video(
                    show_label=False,
                    interactive=False,
                    visible=False,
                    autoplay=True,
                    loop=True,
                    buttons=[],
                    height=320,
                    elem_id="clip-annotated",
                )
                panel = gr.HTML(WAITING, elem_id="clip-answer", js_on_load=FOLLOW_THE_CLIP)
                cancel = gr.Button("Cancel", visible=False, elem_id="clip-cancel")
                with gr.Row(visible=False) as more:
                    save_clip = gr.DownloadButton("Download the clip", size="md", min_width=200)
                    save_timeline = gr.DownloadButton("Download the timeline (CSV)", size="md", min_width=200)
        outputs = [annotated, panel, more, save_clip, save_timeline, cancel, again]
        self._connect(clip, again, cancel, outputs)

    def _connect(self, clip: gr.Video, again: gr.Button, cancel: gr.Button, outputs: list) -> None:
        quick = {"outputs": outputs, "queue": False, "show_progress": "hidden", "api_visibility": "private"}
        started = gr.on(
            [clip.upload, clip.stop_recording, again.click],
            lambda: self._show(working_html(TITLE, 0, TURN), cancel=True),
            **quick,
        )
        run = started.then(
            self.answer,
            clip,
            outputs,
            preprocess=False,
            api_visibility="private",
            show_progress_on=outputs[1],  # where somebody who waits for another visitor's clip sees his place in the queue
            concurrency_id="clip",
            concurrency_limit=1,
        )
        run.success(None, js=SCROLL_TO.format("#clip-annotated video, #clip-answer .card"))
        cancel.click(None, cancels=[run])
        clip.clear(lambda: self._show(WAITING), cancels=[run], **quick)
        # Gradio counts what was cancelled as failed. Only here the last sign of progress is sure to have arrived.
        run.failure(
            lambda clip: self._show(STOPPED, again=True) if clip else self._show(WAITING), clip, preprocess=False, **quick
        )
