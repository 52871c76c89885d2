"""Contracts of the Video tab: its handlers called directly, and `/predict_video` through gradio_client."""

import csv
import re
import time
from pathlib import Path
from types import SimpleNamespace

import av
import httpx
import numpy as np
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import Status
from page_support import ASTRONAUT, HOPPER, ScriptedRecognizer, film
from PIL import Image

from emotion.labels import EMOTIONS
from emotion.video import TIMELINE_COLUMNS, VideoResult
from page.clip import ClipTab
from page.reading import Reader
from page.timeline import MAX_FACES, MAX_POINTS, answer_html, read_lines, sentence
from page.uploads import Settings

ANNOTATED, PANEL, MORE, SAVE_CLIP, SAVE_TIMELINE, CANCEL, AGAIN = range(7)  # what ClipTab.answer fills

SMILING = ScriptedRecognizer({"happy": 0.9, "fear": 0.1})


@pytest.fixture(scope="module")
def filmed(tmp_path_factory) -> bytes:
    return film(tmp_path_factory.mktemp("film") / "film.mp4", 1).read_bytes()


@pytest.fixture
def clip(filmed, uploads) -> dict:
    """Gradio's description of an uploaded clip of one second."""
    (uploads / "me & you.mp4").write_bytes(filmed)
    return {"path": str(uploads / "me & you.mp4"), "orig_name": "me & you.mp4"}


@pytest.fixture
def no_pause(monkeypatch):
    """Every analysed frame is a sign of progress."""
    monkeypatch.setattr("page.working.SECONDS_BETWEEN", 0)


def tab(recognizer=SMILING, **settings) -> ClipTab:
    return ClipTab(Reader(recognizer, Settings(**settings)))


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def write_timeline(path: Path, rows) -> Path:
    """Writes rows of (seconds, face, {emotion: probability})."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(TIMELINE_COLUMNS)
        for seconds, face, probabilities in rows:
            writer.writerow([seconds, face, 0, 0, 9, 9, *(probabilities.get(emotion, 0) for emotion in EMOTIONS)])
    return path


def result(seconds: float, analysed: int) -> VideoResult:
    return VideoResult(Path("a.mp4"), Path("a.csv"), analysed, analysed, seconds, 1)


# The tab


def test_progress_rises_and_ends_with_clip_curves_and_both_downloads(clip, uploads, no_pause):
    *before, last = tab().answer(clip)
    shares = [int(share) for answer in before for share in re.findall(r'aria-valuenow="(\d+)"', answer[PANEL])]
    assert len(shares) == len(before) > 10 and shares == sorted(shares) and shares[0] == 0 and shares[-1] > 80
    assert "1 face followed" in last[PANEL] and "Face 1: happy" in last[PANEL]
    assert last[ANNOTATED].visible and last[MORE].visible and not last[CANCEL].visible and not last[AGAIN].visible
    saved = [Path(last[part].value["path"]) for part in (SAVE_CLIP, SAVE_TIMELINE)]
    assert [path.name for path in saved] == ["me-you-emotions.mp4", "me-you-emotions.csv"]
    assert all(path.is_relative_to(uploads) for path in saved), "it would never be deleted"


@pytest.mark.parametrize("answers", [1, 2, 6])
def test_cancelling_leaves_no_file(clip, uploads, no_pause, answers):
    before = files(uploads)
    work = tab().answer(clip)
    for _ in range(answers):
        next(work)
    work.close()
    assert files(uploads) == before


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("text.mp4", b"not a clip", r"whole video in a usual format"),
        ("photo.mp4", ASTRONAUT.read_bytes(), r"whole video in a usual format"),
        ("large.mp4", bytes(300_000), r"has 0\.3 MB; at most 0\.2 MB .* Cut the clip or export it smaller"),
        ("gone.mp4", None, r"clip is gone: .* Add it again"),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence_and_leaves_nothing(uploads, name, content, sentence):
    if content is not None:
        (uploads / name).write_bytes(content)
    before = files(uploads)
    unused = SimpleNamespace(record={}, predict=None)  # calling it would raise TypeError
    *_, last = tab(unused, max_video_mb=0.2).answer({"path": str(uploads / name)})
    assert re.search(sentence, last[PANEL]) and not last[ANNOTATED].visible and not last[CANCEL].visible
    assert files(uploads) == before


def test_a_clip_without_a_face_gets_a_message_that_helps_and_leaves_nothing(uploads):
    Image.linear_gradient("L").convert("RGB").resize((512, 512)).save(uploads / "gradient.png")
    film(uploads / "empty.mp4", 0.5, (uploads / "gradient.png",))
    before = files(uploads)
    *_, last = tab().answer({"path": str(uploads / "empty.mp4")})
    assert "No face found" in last[PANEL] and "Try a clip" in last[PANEL]
    assert files(uploads) == before


def test_a_clip_is_kept_once_it_was_read_and_only_where_the_operator_asked_for_it(clip, filmed, tmp_path, no_pause):
    kept = tmp_path / "kept"
    kept.mkdir()
    cancelled = tab(keep_folder=kept).answer(clip)
    next(cancelled), next(cancelled), cancelled.close()
    assert not list(kept.iterdir())
    list(tab(keep_folder=kept).answer(clip))
    [copy] = kept.iterdir()
    assert copy.read_bytes() == filmed and copy.name.endswith("-me-you.mp4")


def test_file_names_cannot_smuggle_markup_into_the_page(uploads):
    (uploads / "<b>x.mp4").write_text("not a clip")
    *_, last = tab().answer({"path": str(uploads / "<b>x.mp4")})
    assert "<b>" not in last[PANEL]


# The curves


def test_a_long_timeline_is_thinned_and_its_shares_stay_exact(tmp_path):
    rows = [(i / 15, 1, {"happy": 0.8, "sad": 0.2} if i < 3000 else {"happy": 0.3, "sad": 0.7}) for i in range(4500)]
    [line] = read_lines(write_timeline(tmp_path / "long.csv", rows), 300).values()
    assert len(line.times) == MAX_POINTS and line.probabilities.shape == (MAX_POINTS, 7)
    assert line.answers == 4500
    assert (line.shares["happy"], line.shares["sad"]) == pytest.approx((2 / 3, 1 / 3))
    np.testing.assert_allclose(line.probabilities[:, EMOTIONS.index("happy")], np.where(line.times < 200, 0.8, 0.3), atol=1e-6)


def test_a_face_is_drawn_only_while_it_is_seen(tmp_path):
    rows = [(5 + i / 15, 1, {"happy": 1}) for i in range(75)]
    lines = read_lines(write_timeline(tmp_path / "late.csv", rows), 10)
    panel = answer_html(lines, result(10, 150), "")
    xs = [float(x) for x in re.findall(r"([\d.]+),", " ".join(re.findall(r'points="([^"]+)"', panel)))]
    assert min(xs) == pytest.approx(MAX_POINTS / 2, abs=1) and max(xs) == pytest.approx(MAX_POINTS, abs=2)


def test_every_face_has_a_sentence_and_seven_curves_and_the_one_seen_longest_is_open(tmp_path):
    rows = [(i / 15, face, {"happy": 1} if i < 45 else {"sad": 1}) for i in range(60) for face in (1, 2) if face == 2 or i < 15]
    lines = read_lines(write_timeline(tmp_path / "two.csv", rows), 4)
    panel = answer_html(lines, result(4, 60), "")
    first, second = re.findall(r"<details.*?</details>", panel)
    assert " open" not in first.split(">")[0] and " open" in second.split(">")[0]
    assert first.count("<polygon") == second.count("<polygon") == 7
    assert sentence(lines[1], result(4, 60)) == "Seen for 1 s: happy all the time."
    assert sentence(lines[2], result(4, 60)) == "Seen for 4 s: happy in 75% of that time, then sad (25%)."


def test_in_a_crowd_the_faces_seen_longest_are_shown(tmp_path):
    crowd = 3 * MAX_FACES
    rows = [(i / 15, face, {"neutral": 1}) for i in range(crowd) for face in range(1, crowd + 1) if i < face]
    panel = answer_html(read_lines(write_timeline(tmp_path / "crowd.csv", rows), 3), result(3, crowd), "")
    assert [int(face) for face in re.findall(r"Face (\d+):", panel)] == list(range(crowd - MAX_FACES + 1, crowd + 1))
    assert f"{crowd} faces followed" in panel and "the CSV file has all of them" in panel


# The endpoint


def test_predict_video_gives_a_clip_a_timeline_and_a_summary(client, tmp_path):
    path = film(tmp_path / "two people.mp4", 3, (ASTRONAUT, HOPPER))
    annotated, timeline, summary = client.predict(handle_file(str(path)), api_name="/predict_video")
    with av.open(annotated) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.duration / av.time_base == pytest.approx(3, abs=0.1)
    assert set(summary) == {"seconds", "frames", "analysed", "faces"}
    assert summary["seconds"] == pytest.approx(3, abs=0.1) and summary["frames"] == summary["analysed"] == 45
    rows = list(csv.DictReader(Path(timeline).read_text().splitlines()))
    assert tuple(rows[0]) == TIMELINE_COLUMNS
    assert set(summary["faces"]) == {row["face"] for row in rows}
    for shares in summary["faces"].values():
        assert list(shares) == list(EMOTIONS) and sum(shares.values()) == pytest.approx(1)
    assert summary["faces"]["1"]["happy"] > 0.4  # the astronaut smiles


def test_predict_video_refuses_what_is_no_clip_with_a_sentence(client, tmp_path):
    (tmp_path / "text.mp4").write_text("not a clip")
    with pytest.raises(AppError, match="whole video in a usual format"):
        client.predict(handle_file(str(tmp_path / "text.mp4")), api_name="/predict_video")


@pytest.mark.parametrize("clip", [{"path": "/etc/passwd"}, {}, None, "clip.mp4", [], {"path": str(ASTRONAUT)}])
def test_predict_video_reads_only_uploads_whatever_path_a_client_names(page, clip):
    event = httpx.post(f"{page}gradio_api/call/predict_video", json={"data": [clip]}).json()["event_id"]
    answer = httpx.get(f"{page}gradio_api/call/predict_video/{event}").text
    assert "event: error" in answer and re.search(r"uploads are deleted|must be an uploaded file", answer)


def test_one_clip_at_a_time_while_photos_are_still_answered_and_cancelling_makes_room(page, client, tmp_path):
    path = film(tmp_path / "long.mp4", 30)
    first = client.submit(handle_file(str(path)), api_name="/predict_video")
    wait(lambda: first.outputs())
    assert 0 <= first.outputs()[0][2]["share"] < 1
    second_visitor = Client(page, verbose=False, download_files=tmp_path)
    second = second_visitor.submit(handle_file(str(film(tmp_path / "short.mp4", 0.5))), api_name="/predict_video")
    wait(lambda: second.status().code == Status.IN_QUEUE)
    assert len(client.predict(handle_file(str(ASTRONAUT)), api_name="/predict")[1]["faces"]) == 1
    assert not first.done() and second.status().code == Status.IN_QUEUE
    first.cancel()
    assert second.result(timeout=30)[2]["analysed"] > 0
    assert not list(Path(get_upload_folder()).rglob(".emotions-*"))
    assert not list(Path(get_upload_folder()).rglob("long-emotions*"))


def wait(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()
