"""Many photos as a table: rows for the page, for the CSV file and for the summary."""

import base64
import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from emotion.labels import EMOTIONS
from emotion.verdict import Verdict, percent
from page.theme import emoji, look

COLUMNS = ("file", "face", "x", "y", "width", "height", "emotion", "probability", *EMOTIONS, "note")
"""Header of the CSV file; `note` says why a row has no face."""

MAX_ROWS = 300
"""Rows that the page shows; the CSV file has all of them."""

NO_FACE = "no face found"

CSS = """
#files .download-link { color: inherit; }
.sheet { overflow: auto; max-height: 34rem; border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg);
        background: var(--block-background-fill); }
.sheet table, .sheet thead, .sheet tbody, .sheet tr { border: 0 !important; }
.sheet table { width: 100%; border-collapse: separate; border-spacing: 0; margin: 0; font-size: 0.9rem; }
.sheet th, .sheet td { border: 0; border-bottom: 1px solid var(--border-color-primary); padding: 0.4rem 0.6rem; text-align: left;
        white-space: nowrap; }
.sheet tbody tr:last-child > * { border-bottom: 0; }
.sheet thead th { position: sticky; top: 0; z-index: 1; background: var(--background-fill-secondary); font-weight: 600; }
.sheet tbody th { font-weight: 400; max-width: 15rem; overflow: hidden; text-overflow: ellipsis; }
.sheet td img { width: 44px; height: 44px; border-radius: 8px; object-fit: cover; max-width: none; display: inline-block;
        vertical-align: middle; margin: 0 0.5rem 0 0; }
.sheet td.p, .sheet thead th.p { text-align: right; font-variant-numeric: tabular-nums; min-width: 4.2rem; }
.sheet td.p { background-image: linear-gradient(var(--c), var(--c)); background-repeat: no-repeat;
        background-position: right 0.6rem bottom 0.35rem; background-size: calc((100% - 1.2rem) * var(--p)) 4px; }
.sheet td.p:not(.named) { color: var(--body-text-color-subdued); }
.sheet td.named { font-weight: 600; }
.sheet td.none { color: var(--body-text-color-subdued); white-space: normal; }
@media (max-width: 640px) { .sheet tbody th { max-width: 8rem; } }
"""


@dataclass(frozen=True)
class FaceRow:
    """One face of one photo, without its pixels.

    Attributes:
        box: x, y, width, height in pixels of the photo.
        probabilities: emotion -> 0..1, order of `EMOTIONS`.
        verdict: the same in words.
        picture: a small JPEG of the face; empty when none is wanted.
    """

    box: tuple[int, int, int, int]
    probabilities: dict[str, float]
    verdict: Verdict
    picture: bytes = b""


@dataclass(frozen=True)
class PhotoRow:
    """What became of one file.

    Attributes:
        file: its name.
        faces: left to right.
        error: why it could not be read, and what to do; "" when it was read.
    """

    file: str
    faces: tuple[FaceRow, ...] = ()
    error: str = ""


def face_picture(image: np.ndarray, box: tuple[int, int, int, int]) -> bytes:
    """Cuts a face (x, y, width, height in pixels) out of an RGB photo: a JPEG of 88 pixels a side at most."""
    x, y, width, height = (int(side) for side in box)
    cut = Image.fromarray(image[max(0, y) : y + height, max(0, x) : x + width])
    cut.thumbnail((88, 88))
    file = io.BytesIO()
    cut.save(file, "JPEG", quality=80)
    return file.getvalue()


def write_csv(path: Path, photos: Iterable[PhotoRow]) -> None:
    """Writes a row for each face, and one with a note for each file without a face; columns: `COLUMNS`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for photo in photos:
            name = harmless(photo.file)
            for number, face in enumerate(photo.faces, 1):
                scores = [f"{p:.6f}" for p in face.probabilities.values()]
                rows.writerow([name, number, *face.box, face.verdict.label, max(scores), *scores, ""])
            if not photo.faces:
                rows.writerow([name, *[""] * (len(COLUMNS) - 2), harmless(photo.error or NO_FACE)])


def harmless(cell: str) -> str:
    """Puts a quote before a text that a spreadsheet would run as a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else cell


def table_html(photos: list[PhotoRow]) -> str:
    """Builds the table: a row for each face and for each file without one; "" without files."""
    if not photos:
        return ""
    rows = [row for photo in photos for row in _rows(photo)]
    heads = "".join(f'<th scope="col" class="p">{emotion}</th>' for emotion in EMOTIONS)
    more = f"The first {MAX_ROWS} of {len(rows):,} rows. The CSV file has all of them." if len(rows) > MAX_ROWS else ""
    return (
        '<div class="sheet" tabindex="0" role="region" aria-label="Every face of every photo"><table><thead><tr>'
        f'<th scope="col">Photo</th><th scope="col">Face</th><th scope="col">Emotion</th>{heads}</tr></thead>'
        f'<tbody>{"".join(rows[:MAX_ROWS])}</tbody></table></div><p class="note">{more}</p>'
    )


def _rows(photo: PhotoRow) -> list[str]:
    head = f'<th scope="row" title="{escape(photo.file)}">{escape(photo.file)}</th>'
    if not photo.faces:
        return [f'<tr>{head}<td class="none" colspan="{2 + len(EMOTIONS)}">{escape(photo.error or NO_FACE)}</td></tr>']
    return [f"<tr>{head}{_face(number, face)}</tr>" for number, face in enumerate(photo.faces, 1)]


def _face(number: int, face: FaceRow) -> str:
    source = f"data:image/jpeg;base64,{base64.b64encode(face.picture).decode()}"
    certainty = "" if face.verdict.confidence is None else f" {percent(face.verdict.confidence)}"
    scores = "".join(
        f'<td class="p{" named" if emotion in face.verdict.named else ""}" style="--p:{p:.3f};--c:{look(emotion).colour}">'
        f"{escape(percent(p))}</td>"
        for emotion, p in face.probabilities.items()
    )
    return (
        f'<td><img src="{source}" alt=""> {number}</td><td><span aria-hidden="true">{emoji(face.verdict)}</span> '
        f"{escape(face.verdict.label + certainty)}</td>{scores}"
    )


def summary_html(photos: list[PhotoRow], timing: str) -> str:
    """Builds the card that counts: faces of each emotion, photos without a face, files that could not be read.

    Args:
        photos: all of them.
        timing: one line on how long it took.
    """
    faces = [face for photo in photos for face in photo.faces]
    counts = Counter(face.verdict.named[0] if face.verdict.named else "not sure" for face in faces)
    bars = "".join(
        _count(name, count, max(counts.values())) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    empty, broken = sum(not photo.faces and not photo.error for photo in photos), sum(bool(photo.error) for photo in photos)
    notes = [
        f"{_many(empty, 'photo')} without a face." if empty else "",
        f"{_many(broken, 'file')} could not be read; the table says why." if broken else "",
        "A face between two emotions counts for the more probable one." if any(len(f.verdict.named) == 2 for f in faces) else "",
    ]
    return (
        f'<section class="card" role="status"><h2>{_many(len(faces), "face")} in {_many(len(photos) - broken, "photo")}</h2>'
        f"<p>{' '.join(filter(None, notes))}</p>"
        f'<ul class="bars still counts" aria-label="How many faces show each emotion">{bars}</ul>'
        f'<p class="timing">{escape(timing)}</p></section>'
    )


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def _count(name: str, count: int, most: int) -> str:
    emblem, colour = ("🤔", look("neutral").colour) if name == "not sure" else look(name)[1:]
    return (
        f'<li><span><span aria-hidden="true">{emblem}</span> {name}</span><span class="track" aria-hidden="true">'
        f'<span class="fill" style="width:{count / most:.1%};background:{colour}"></span></span>'
        f'<span class="value">{count:,}</span></li>'
    )
