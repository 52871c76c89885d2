"""Contracts of the Many photos tab: its handlers called directly, and `/predict_batch` through gradio_client."""

import csv
import re
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from page_support import ASTRONAUT, HOPPER, REFUSALS, ScriptedRecognizer, write_refused
from PIL import Image

from emotion.labels import EMOTIONS
from emotion.verdict import judge
from page.batch import MAX_PHOTOS, BatchTab
from page.reading import Reader
from page.table import COLUMNS, MAX_ROWS, FaceRow, PhotoRow, summary_html, table_html, write_csv
from page.uploads import Settings

PANEL, TABLE, GALLERY, SAVE, CANCEL, FILES, FOLDER = range(7)  # what BatchTab.answer fills


@pytest.fixture
def no_pause(monkeypatch):
    """Every file is a sign of progress."""
    monkeypatch.setattr("page.working.SECONDS_BETWEEN", 0)


@pytest.fixture
def pile(uploads, two_faces) -> list[dict]:
    """Gradio's descriptions of four files: one face, broken, two faces, no face."""
    (uploads / "one.jpg").write_bytes(ASTRONAUT.read_bytes())
    write_refused(uploads, "cut.jpg")
    Image.linear_gradient("L").save(uploads / "gradient.png")
    return [described(uploads / name) for name in ("one.jpg", "cut.jpg", "two.png", "gradient.png")]


def described(path: Path) -> dict:
    return {"path": str(path), "orig_name": path.name}


def tab(**settings) -> BatchTab:
    return BatchTab(Reader(ScriptedRecognizer({"happy": 0.9, "fear": 0.1}, {"sad": 0.5, "fear": 0.5}), Settings(**settings)))


def read_csv(path: str | Path) -> list[dict]:
    return list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))


def face(**probabilities) -> FaceRow:
    scores = {emotion: probabilities.get(emotion, 0.0) for emotion in EMOTIONS}
    return FaceRow((1, 2, 3, 4), scores, judge(scores))


# The tab


def test_every_face_is_a_row_and_a_broken_file_is_one_with_its_reason(pile):
    *_, last = tab().answer(pile)
    rows = read_csv(last[SAVE].value["path"])
    found = [(row["file"], row["face"], row["emotion"]) for row in rows]
    expected = [("one.jpg", "1", "happy"), ("cut.jpg", "", ""), ("two.png", "1", "happy"), ("two.png", "2", "sad or fear")]
    expected.append(("gradient.png", "", ""))
    # Equal probabilities may be named in either order.
    assert [(name, number, emotion.replace("fear or sad", "sad or fear")) for name, number, emotion in found] == expected
    assert "save it again as JPEG or PNG" in rows[1]["note"] and rows[4]["note"] == "no face found"
    assert (float(rows[0]["probability"]), float(rows[0]["happy"])) == pytest.approx((0.9, 0.9))
    assert all(row["note"] == "" for row in rows if row["face"])
    assert last[TABLE].count("<tr>") == 1 + len(rows)
    assert "no face found" in last[TABLE] and "save it again as JPEG or PNG" in last[TABLE]
    assert "3 faces in 3 photos" in last[PANEL] and "1 photo without a face" in last[PANEL]
    assert "1 file could not be read" in last[PANEL]


def test_rows_appear_while_it_works_and_nothing_can_be_added_until_it_ends(pile, no_pause):
    *before, last = tab().answer(pile)
    assert [answer[TABLE].count('<th scope="row"') for answer in before] == [1, 2, 4, 5]
    assert [re.findall(r'aria-valuenow="(\d+)"', answer[PANEL]) for answer in before] == [["25"], ["50"], ["75"], ["100"]]
    assert not last[CANCEL].visible and last[FILES].interactive and last[FOLDER].interactive


@pytest.mark.parametrize("answers", [1, 3, 4])
def test_cancelling_leaves_no_file(pile, uploads, no_pause, answers):
    before = set(uploads.rglob("*"))
    work = tab().answer(pile)
    for _ in range(answers):
        next(work)
    work.close()
    assert set(uploads.rglob("*")) == before


def test_the_gallery_shows_the_first_photos_with_a_face_from_where_they_are_deleted(pile, uploads, monkeypatch):
    *_, last = tab().answer(pile)
    shown = [Path(item["image"]["path"]) for item in last[GALLERY].value]
    assert [path.name for path in shown] == ["one-emotions.jpg", "two-emotions.jpg"]
    assert all(path.is_relative_to(uploads) for path in [*shown, Path(last[SAVE].value["path"])])
    monkeypatch.setattr("page.batch.GALLERY_PHOTOS", 1)
    *_, last = tab().answer(pile)
    assert len(last[GALLERY].value) == 1


@pytest.mark.parametrize(
    "files, sentence",
    [
        ([{}] * (MAX_PHOTOS + 1), rf"At most {MAX_PHOTOS} files .* Received: {MAX_PHOTOS + 1}\. Add them in smaller parts"),
        ([], "must be a list of uploaded files"),
        (None, "must be a list of uploaded files"),
    ],
)
def test_too_many_or_no_files_are_refused_with_a_sentence(uploads, files, sentence):
    unused = BatchTab(Reader(SimpleNamespace(record={}, predict=None)))  # calling it would raise TypeError
    [last] = unused.answer(files)
    assert re.search(sentence, last[PANEL]) and last[FILES].interactive
    assert not list(uploads.iterdir())


def test_photos_are_kept_only_where_the_operator_asked_for_it(pile, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    list(tab(keep_folder=kept).answer(pile))
    assert sorted(path.name.rsplit("-", 1)[1] for path in kept.iterdir()) == ["gradient.png", "one.jpg", "two.png"]


# The table and the CSV file


@pytest.mark.parametrize("name", ["=1+1.jpg", "+1.jpg", "-1.jpg", "@SUM(A1).jpg", "\t=1.jpg", "\r=1.jpg"])
def test_no_cell_can_run_as_a_formula_in_a_spreadsheet(tmp_path, name):
    write_csv(tmp_path / "a.csv", [PhotoRow(name, (face(happy=1),)), PhotoRow("a.jpg", error=name)])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["file"], rows[1]["note"]) == ("'" + name, "'" + name)


def test_names_that_are_no_formula_stay_as_they_are(tmp_path):
    write_csv(tmp_path / "a.csv", [PhotoRow("a=b, été 1.jpg")])
    assert read_csv(tmp_path / "a.csv")[0]["file"] == "a=b, été 1.jpg"


def test_file_names_and_reasons_cannot_smuggle_markup_into_the_page():
    table = table_html([PhotoRow('"><script>x</script>', (face(happy=1),)), PhotoRow("a", error="<b>bold</b>")])
    assert "<script" not in table and "<b>" not in table and '""' not in table.replace('alt=""', "")


def test_a_long_table_is_cut_and_says_so():
    many = [PhotoRow(f"{i}.jpg", (face(happy=1),)) for i in range(MAX_ROWS + 1)]
    assert table_html(many).count('<th scope="row"') == MAX_ROWS
    assert f"first {MAX_ROWS} of {MAX_ROWS + 1} rows" in table_html(many)
    assert "first" not in table_html(many[:-1])


def test_the_summary_counts_the_faces_of_each_emotion():
    happy, unsure = face(happy=1), face(happy=0.2, sad=0.2, fear=0.2, angry=0.2, neutral=0.2)
    panel = summary_html([PhotoRow("a", (happy, happy, face(sad=1))), PhotoRow("b", (unsure,))], "")
    counted = re.findall(r"</span> ([a-z ]+)</span><span class=\"track\".*?class=\"value\">(\d+)<", panel)
    assert counted == [("happy", "2"), ("not sure", "1"), ("sad", "1")]
    assert "4 faces in 2 photos" in panel


# The endpoint


def test_predict_batch_answers_every_file_in_its_order(client, tmp_path):
    refused = write_refused(tmp_path, "cut.jpg")
    photos = [handle_file(str(path)) for path in (ASTRONAUT, refused, HOPPER)]
    answer, table = client.predict(photos, api_name="/predict_batch")
    first, second, third = answer["photos"]
    assert [entry["file"] for entry in answer["photos"]] == ["astronaut.jpg", "cut.jpg", "grace_hopper.jpg"]
    _, alone = client.predict(handle_file(str(ASTRONAUT)), api_name="/predict")
    assert first["faces"] == alone["faces"] and first["ms"] > 0
    assert set(first) == set(third) == {"file", "faces", "ms"} and len(third["faces"]) == 1
    assert set(second) == {"file", "error"} and re.search(REFUSALS["cut.jpg"], second["error"])
    assert [row["file"] for row in read_csv(table)] == ["astronaut.jpg", "cut.jpg", "grace_hopper.jpg"]


def test_predict_batch_reads_only_uploads_whatever_path_a_client_names(page):
    files = [{"path": "/etc/passwd"}, {"path": str(ASTRONAUT)}, {}, None, "photo.jpg"]
    event = httpx.post(f"{page}gradio_api/call/predict_batch", json={"data": [files]}).json()["event_id"]
    answer = httpx.get(f"{page}gradio_api/call/predict_batch/{event}").text
    answer = answer.partition("event: complete")[2]
    assert answer and '"faces"' not in answer
    assert answer.count("uploads are deleted") == 3 and answer.count("must be an uploaded file") == 2


@pytest.mark.parametrize("files", [[], None, "photo.jpg"])
def test_predict_batch_refuses_what_is_no_list_with_a_sentence(client, files):
    with pytest.raises(AppError, match="must be a list of uploaded files"):
        client.predict(files, api_name="/predict_batch")
