"""A clip's timeline as a visitor reads it: for every face one sentence and seven curves over time."""

import csv
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from emotion.labels import EMOTIONS
from emotion.verdict import percent
from emotion.video import VideoResult, summarise
from page.theme import look
from page.working import clock

MAX_POINTS = 240
"""Points of one curve, at most: about one for every two pixels of a wide screen."""

MAX_FACES = 12
"""Faces whose curves are shown: those seen longest. In a crowd, many are seen for a moment only; the CSV file has them all."""

CSS = """
.faces { display: grid; gap: 0.6rem; margin-top: 1rem; }
.faces details { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg); padding: 0.7rem 0.9rem; }
.faces summary { cursor: pointer; line-height: 1.45; }
.faces summary strong { font-size: 1.02rem; }
.faces summary span.note { display: block; margin: 0.1rem 0 0 1.1rem; }
.curves { list-style: none; margin: 0.8rem 0 0; padding: 0; display: grid; gap: 3px; --at: -1%; }
.curves li { display: grid; grid-template-columns: 6.6rem 1fr 3rem; gap: 0.6rem; align-items: center; margin: 0; padding: 0; }
.curves .track { position: relative; height: 30px; background: var(--background-fill-secondary); border-radius: 4px;
        overflow: hidden; cursor: pointer; }
.curves .track::before { content: ""; position: absolute; inset: 50% 0 auto; border-top: 1px dashed var(--border-color-primary); }
.curves .track::after { content: ""; position: absolute; inset: 0 auto 0 var(--at);
        border-left: 2px solid var(--body-text-color); }
.curves svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.curves .value { text-align: right; font-variant-numeric: tabular-nums; }
.curves .axis { position: relative; height: 1.1rem; font-size: 0.78rem; color: var(--body-text-color-subdued); }
.curves .axis span { position: absolute; transform: translateX(-50%); font-variant-numeric: tabular-nums; }
.curves .axis span:first-child { transform: none; }
@media (max-width: 640px) {
  .faces details { padding: 0.6rem; }
  .curves li { grid-template-columns: 5.4rem 1fr 2.6rem; gap: 0.3rem; }
  .curves .axis span:nth-child(even) { display: none; }
}
"""

FOLLOW_THE_CLIP = """
const clip = () => document.querySelector("#clip-annotated video");
const follow = (event) => {
    const video = clip();
    if (event.target !== video || !(video.duration > 0)) return;
    for (const curves of element.querySelectorAll(".curves"))
        curves.style.setProperty("--at", `${100 * video.currentTime / video.duration}%`);
};
for (const name of ["timeupdate", "seeking"]) document.addEventListener(name, follow, true);
element.addEventListener("click", (event) => {
    const track = event.target.closest(".track"), video = clip();
    if (!track || !(video?.duration > 0)) return;
    const { left, width } = track.getBoundingClientRect();
    video.currentTime = video.duration * (event.clientX - left) / width;
});
"""
"""A line in the curves follows the clip that plays; a click on a curve shows that moment."""


@dataclass
class FaceLine:
    """One face of a timeline, thinned.

    Attributes:
        times: (n,) seconds, ascending, n <= `MAX_POINTS`.
        probabilities: (n, 7) means around those times, order of `EMOTIONS`.
        answers: how many analysed frames show the face.
        shares: emotion -> share of those in which it was the most probable.
    """

    times: np.ndarray
    probabilities: np.ndarray
    answers: int
    shares: dict[str, float] = field(default_factory=dict)


def read_lines(csv_path: Path, seconds: float) -> dict[int, FaceLine]:
    """Reads a timeline row by row, so that memory holds `MAX_POINTS` points of each face, however long the clip is.

    Args:
        csv_path: a file with `emotion.video.TIMELINE_COLUMNS`.
        seconds: length of the clip.

    Returns:
        Number of the face -> its line, in order of number.
    """
    # For each face and slot of time: how many answers, the sum of their times, the sums of their probabilities.
    sums: dict[int, np.ndarray] = {}
    for row in _rows(csv_path):
        slots = sums.setdefault(int(row["face"]), np.zeros((MAX_POINTS, 2 + len(EMOTIONS))))
        time = float(row["seconds"])
        slot = min(MAX_POINTS - 1, int(time / max(seconds, 1e-6) * MAX_POINTS))
        slots[slot] += [1, time, *(float(row[emotion]) for emotion in EMOTIONS)]
    shares = summarise(_rows(csv_path))
    lines = {}
    for face, slots in sorted(sums.items()):
        used = slots[slots[:, 0] > 0]
        means = used[:, 1:] / used[:, :1]
        lines[face] = FaceLine(means[:, 0], means[:, 1:], int(used[:, 0].sum()), shares[face])
    return lines


def _rows(csv_path: Path):
    with csv_path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def answer_html(lines: dict[int, FaceLine], result: VideoResult, timing: str) -> str:
    """Builds the answer for a clip: its faces, each with a sentence and its curves, the one seen longest opened.

    Args:
        lines: as `read_lines` returns them; at least one.
        result: of the same clip.
        timing: one line on how long it took.
    """
    longest_first = sorted(lines, key=lambda face: -lines[face].answers)
    shown = sorted(longest_first[:MAX_FACES])
    title = "1 face followed" if len(lines) == 1 else f"{len(lines)} faces followed"
    rest = "" if len(shown) == len(lines) else f" Shown are the {MAX_FACES} seen longest; the CSV file has all of them."
    faces = "".join(_face(face, lines[face], result, face == longest_first[0]) for face in shown)
    return (
        f'<section class="card" role="status"><h2>{title}</h2><p class="note">The curves show each emotion\'s probability over '
        f"the clip, from 0 to 100%; beside them, in what share of the time it was the most probable. Click a curve to see that "
        f'moment.{rest}</p><div class="faces">{faces}</div><p class="timing">{escape(timing)}</p></section>'
    )


def _face(face: int, line: FaceLine, result: VideoResult, opened: bool) -> str:
    ranked = sorted(EMOTIONS, key=lambda emotion: (-line.shares[emotion], -line.probabilities[:, EMOTIONS.index(emotion)].mean()))
    curves = "".join(_curve(emotion, line, result.seconds) for emotion in ranked)
    first = look(ranked[0])
    return (
        f'<details name="faces"{" open" if opened else ""}><summary><strong><span aria-hidden="true">{first.emoji}</span> '
        f'Face {face}: {ranked[0]}</strong><span class="note">{escape(sentence(line, result))}</span></summary>'
        f'<ul class="curves" aria-label="Probability of each emotion over time for face {face}">{curves}'
        f'<li aria-hidden="true"><span></span><span class="axis">{_axis(result.seconds)}</span><span></span></li></ul></details>'
    )


def sentence(line: FaceLine, result: VideoResult) -> str:
    """Says what a face showed: "Seen for 8 s: happy in 62% of that time, then surprise (20%) and neutral (18%)."."""
    seen = line.answers / max(result.analysed, 1) * result.seconds
    first, *others = sorted((emotion for emotion in EMOTIONS if line.shares[emotion] >= 0.01), key=lambda e: -line.shares[e])
    if not others:
        return f"Seen for {clock(seen)}: {first} all the time."
    then = [f"{emotion} ({percent(line.shares[emotion])})" for emotion in others]
    listed = then[0] if len(then) == 1 else f"{', '.join(then[:-1])} and {then[-1]}"
    return f"Seen for {clock(seen)}: {first} in {percent(line.shares[first])} of that time, then {listed}."


def _curve(emotion: str, line: FaceLine, seconds: float) -> str:
    shown = look(emotion)
    heights = line.probabilities[:, EMOTIONS.index(emotion)]
    # A face is drawn from its first to its last answer, and at least one point wide.
    xs = line.times / max(seconds, 1e-6) * MAX_POINTS
    xs = np.concatenate([[xs[0]], xs, [max(xs[-1], xs[0] + 1)]])
    ys = 100 * (1 - np.concatenate([heights[:1], heights, heights[-1:]]))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    area = f"{xs[0]:.1f},100 {points} {xs[-1]:.1f},100"
    return (
        f'<li><span><span aria-hidden="true">{shown.emoji}</span> {emotion}</span><span class="track" aria-hidden="true">'
        f'<svg viewBox="0 0 {MAX_POINTS} 100" preserveAspectRatio="none"><polygon points="{area}" fill="{shown.colour}"/></svg>'
        f'</span><span class="value">{escape(percent(line.shares[emotion]))}</span></li>'
    )


def _axis(seconds: float) -> str:
    step = next((step for step in (1, 2, 5, 10, 15, 30) if seconds / step <= 6), 60)
    marks = range(0, int(seconds * 0.97) + 1, step)  # a mark at the very end would be cut off
    return "".join(f'<span style="left:{100 * s / max(seconds, 1e-6):.1f}%">{s // 60}:{s % 60:02d}</span>' for s in marks)
