"""Clip -> annotated clip and emotion timeline, in memory that does not grow with the clip. Sound is dropped."""

import csv
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emotion.clips import ClipReader, Pace, VideoError, create_clip, open_clip
from emotion.drawing import Tag, annotate
from emotion.faces import TILED_ABOVE
from emotion.images import area_resize
from emotion.labels import EMOTIONS
from emotion.recognizer import EmotionRecognizer
from emotion.tracking import SMOOTHING, FaceTracker, TrackedFace
from emotion.verdict import NOT_SURE_BELOW, judge

__all__ = ["FaceTracker", "TrackedFace", "VideoError", "VideoProgress", "VideoResult", "analyse_video", "caption", "summarise"]

MAX_SECONDS = 300.0
"""Longest clip that is taken."""

SAMPLE_FPS = 15.0
"""Answers a second of clip. An expression takes a third of a second or more to come or go: that is five answers."""

OUTPUT_FPS = 30.0
"""Frames a second of the annotated clip, at most: more would double the time without being seen."""

# Faces are looked for in pictures of this size. In larger ones `FaceFinder` also searches tile by tile, for eight times the
# time; without that, a face must be about as wide as a sixteenth of the picture.
ANALYSED_SIDE = TILED_ABOVE

TIMELINE_COLUMNS = ("seconds", "face", "x", "y", "width", "height", *EMOTIONS)
"""Header of the timeline: time in the clip, number of the face, its box in pixels of the clip, seven probabilities."""


@dataclass(frozen=True)
class VideoResult:
    """What a clip became.

    Attributes:
        annotated_path: MP4 (H.264, yuv420p, no sound) that plays in every browser, even while it loads.
        csv_path: the timeline, `TIMELINE_COLUMNS`; a row for each face of each analysed frame, in order of time.
        frames: how many frames the annotated clip has.
        analysed: how many of them were looked at; the others repeat what the last of these showed.
        seconds: length of the clip.
        faces: how many different faces were seen.
    """

    annotated_path: Path
    csv_path: Path
    frames: int
    analysed: int
    seconds: float
    faces: int


@dataclass(frozen=True)
class VideoProgress:
    """How far the work is.

    Attributes:
        share: 0..1.
        result: None until all is done.
    """

    share: float
    result: VideoResult | None = None


def analyse_video(
    path: Path | str,
    recognizer: EmotionRecognizer,
    out_dir: Path | str,
    *,
    max_seconds: float = MAX_SECONDS,
    sample_fps: float = SAMPLE_FPS,
    smoothing: float = SMOOTHING,
) -> Iterator[VideoProgress]:
    """Follows the faces of a clip and writes `<name>_emotions.mp4` and `<name>_emotions.csv`.

    This is a generator: it works while it is iterated, and `close()` cancels it. Both files appear together at the end;
    when it is closed or fails, nothing is left behind.

        for step in analyse_video("clip.mp4", recognizer, "results"):
            print(f"{step.share:.0%}")
        print(step.result.annotated_path)

    Args:
        path: a clip in any usual format. Turned as its header says; frame rates may vary.
        recognizer: reads the frames.
        out_dir: an existing folder.
        max_seconds: a longer clip is refused.
        sample_fps: analysed frames a second, at most.
        smoothing: time constant in seconds of the probabilities, in the clip as in the timeline; 0 smooths nothing.

    Yields:
        The progress after every analysed frame; the last one carries the result.

    Raises:
        VideoError: there is no such file, it is no clip, it is too long or too large, broken, or cut off.
    """
    path, out_dir = Path(path), Path(out_dir)
    with open_clip(path, max_seconds) as clip:
        yield VideoProgress(0.0)
        with tempfile.TemporaryDirectory(dir=out_dir, prefix=".emotions-") as folder:
            video, timeline = Path(folder) / "annotated.mp4", Path(folder) / "timeline.csv"
            frames, analysed, faces = yield from _analyse(clip, recognizer, video, timeline, Pace(sample_fps), smoothing)
            video = video.replace(out_dir / f"{path.stem}_emotions.mp4")
            timeline = timeline.replace(out_dir / f"{path.stem}_emotions.csv")
    yield VideoProgress(1.0, VideoResult(video, timeline, frames, analysed, clip.seconds, faces))


def _analyse(
    clip: ClipReader, recognizer: EmotionRecognizer, video: Path, timeline: Path, pace: Pace, smoothing: float
) -> Generator[VideoProgress, None, tuple[int, int, int]]:
    """Writes both files; returns how many frames were written, how many analysed, and how many faces were seen."""
    tracker = FaceTracker(smoothing=smoothing)
    not_sure_below = recognizer.record.get("not_sure_below", NOT_SURE_BELOW)
    frames = analysed = people = 0
    tags: list[Tag] = []
    with create_clip(video, OUTPUT_FPS) as writer, timeline.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(TIMELINE_COLUMNS)
        for picture, seconds, share in clip.frames(OUTPUT_FPS):
            looks = pace.picks(seconds)
            if looks:
                small = shrink(picture)
                faces = tracker.update(recognizer.predict(small), seconds)
                rows.writerows(_row(face, seconds, clip.width / small.shape[1], clip.height / small.shape[0]) for face in faces)
                factors = picture.shape[1] / small.shape[1], picture.shape[0] / small.shape[0]
                tags = [replace(caption(face, not_sure_below), box=_stretch(face.box, *factors)) for face in faces]
                people = max([people, *(face.id for face in faces)])
                analysed += 1
            writer.write(annotate(picture, tags), seconds)
            frames += 1
            if looks:
                yield VideoProgress(share)
    return frames, analysed, people


def shrink(picture: np.ndarray) -> np.ndarray:
    """Returns a picture in the size in which frames are looked at: uint8 RGB, longer side at most `ANALYSED_SIDE`."""
    scale = ANALYSED_SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return area_resize(picture, *(max(1, round(side * scale)) for side in (picture.shape[1], picture.shape[0])))


def _stretch(box: tuple[int, int, int, int], x_factor: float, y_factor: float) -> tuple[int, int, int, int]:
    x, y, width, height = box
    left, top, right, bottom = x * x_factor, y * y_factor, (x + width) * x_factor, (y + height) * y_factor
    return round(left), round(top), round(right) - round(left), round(bottom) - round(top)


def _row(face: TrackedFace, seconds: float, *factors: float) -> list:
    return [f"{seconds:.3f}", face.id, *_stretch(face.box, *factors), *(f"{p:.6f}" for p in face.probabilities)]


def summarise(rows: Iterable[Mapping]) -> dict[int, dict[str, float]]:
    """Tells how a timeline's answers divide among the emotions.

    Args:
        rows: the timeline's rows, such as `csv.DictReader(file)` or `frame.to_dict("records")`.

    Returns:
        Number of the face -> emotion -> share 0..1 of this face's answers in which it was the most probable; all seven
        emotions, sum 1. Since answers come at an even pace, this is the share of the time in which the face was seen.
    """
    counts: dict[int, np.ndarray] = {}
    for row in rows:
        probabilities = [float(row[emotion]) for emotion in EMOTIONS]
        counts.setdefault(int(row["face"]), np.zeros(len(EMOTIONS)))[int(np.argmax(probabilities))] += 1
    return {
        face: {emotion: float(share) for emotion, share in zip(EMOTIONS, count / count.sum(), strict=True)}
        for face, count in sorted(counts.items())
    }


def caption(face: TrackedFace, not_sure_below: float = NOT_SURE_BELOW) -> Tag:
    """Returns what to draw for a tracked face, in a clip or in a webcam picture: its number, emotion and probability."""
    verdict = judge(dict(zip(EMOTIONS, map(float, face.probabilities), strict=True)), not_sure_below=not_sure_below)
    named = f"{face.id} {verdict.label}"
    percent = "" if verdict.confidence is None else f" {verdict.confidence:.0%}"
    return Tag(face.box, (named + percent, named, str(face.id)), verdict.named[0] if verdict.named else "not sure")
