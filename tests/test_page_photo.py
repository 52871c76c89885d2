"""Contracts of the Photo tab: its photo_tab called directly, with scripted answers."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from page_support import ASTRONAUT, REFUSALS, ScriptedRecognizer, write_refused
from PIL import Image

from emotion.labels import EMOTIONS, FOUR_EMOTIONS
from page.photo import PhotoTab
from page.reading import Reader
from page.uploads import Settings

ANNOTATED, FACES, PANEL, MORE, SAVE_PHOTO, SAVE_DATA = range(6)  # what PhotoTab.answer fills


def tab(recognizer) -> PhotoTab:
    return PhotoTab(Reader(recognizer))


def test_the_largest_face_is_explained_first_and_every_face_can_be_chosen(two_faces):
    photo_tab = tab(ScriptedRecognizer({"happy": 1}, {"sad": 1}))
    answer = photo_tab.answer(two_faces, None, False, False, False)
    assert answer[FACES].value == 1 and answer[FACES].visible
    assert [label for label, _ in answer[FACES].choices] == ["1 😄 happy", "2 😢 sad"]
    assert "Sad" in answer[PANEL] and "mouth corners turned down" in answer[PANEL]
    assert "Happy" in photo_tab.answer(two_faces, 0, False, False, False)[PANEL]
    assert photo_tab.answer(two_faces, 7, False, False, False)[FACES].value == 1  # no such face


def test_a_click_on_a_face_chooses_it_and_a_click_beside_faces_changes_nothing(two_faces):
    photo_tab = tab(ScriptedRecognizer({"happy": 1}, {"sad": 1}))
    on_the_left_face, on_no_face = SimpleNamespace(index=[225, 120]), SimpleNamespace(index=[5, 500])
    assert photo_tab.answer_click(two_faces, 1, False, False, False, on_the_left_face)[FACES].value == 0
    assert photo_tab.answer_click(two_faces, 1, False, False, False, on_no_face)[FACES].value == 1


def test_a_click_finds_the_face_also_when_the_shown_photo_is_enlarged(two_faces, uploads):
    small = {"path": str(uploads / "small.png")}
    Image.open(two_faces["path"]).reduce(4).save(small["path"])
    photo_tab = tab(ScriptedRecognizer({"happy": 1}, {"sad": 1}))
    shown = Image.open(photo_tab.answer(small, None, False, False, False)[SAVE_PHOTO].value["path"])
    assert shown.width == 2 * Image.open(small["path"]).width
    on_the_left_face = SimpleNamespace(index=[2 * 225 / 4, 2 * 120 / 4])
    assert photo_tab.answer_click(small, 1, False, False, False, on_the_left_face)[FACES].value == 0


def test_one_face_needs_no_chooser_and_brings_both_downloads(uploads):
    (uploads / "me & you.jpg").write_bytes(ASTRONAUT.read_bytes())
    photo = {"path": str(uploads / "me & you.jpg"), "orig_name": "me & you.jpg"}
    answer = tab(ScriptedRecognizer({"happy": 0.9, "fear": 0.1})).answer(photo, None, False, False, False)
    assert not answer[FACES].visible and answer[MORE].visible
    assert Path(answer[SAVE_PHOTO].value["path"]).name == "me-you-emotions.jpg"
    saved = json.loads(Path(answer[SAVE_DATA].value["path"]).read_text())
    assert saved["faces"][0]["probabilities"]["happy"] == pytest.approx(0.9)


def test_everything_written_lies_where_it_is_deleted_again(two_faces, uploads):
    photo_tab = tab(ScriptedRecognizer({"happy": 1}, {"sad": 1}))
    before = set(uploads.rglob("*"))
    photo_tab.answer(two_faces, None, True, False, False)
    photo_tab.predict(two_faces)
    written = {path.suffix for path in set(uploads.rglob("*")) - before if path.is_file()}
    assert written == {".jpg", ".json"}


@pytest.mark.parametrize("four, names", [(False, EMOTIONS), (True, FOUR_EMOTIONS)])
def test_every_emotion_of_the_chosen_view_gets_a_bar(two_faces, four, names):
    panel = tab(ScriptedRecognizer({"happy": 0.6, "angry": 0.4})).answer(two_faces, 0, False, False, four)[PANEL]
    assert sorted(re.findall(r"</span> (\w+)</span><span class=\"track\"", panel)) == sorted(names)
    assert re.findall(r"class=\"value\">([^<]+)<", panel) == ["60%", "40%"] + ["0%"] * (len(names) - 2)
    assert re.search(r"1 face read in \d+ ms", panel)


def test_landmarks_are_drawn_only_when_asked_for(two_faces):
    photo_tab = tab(ScriptedRecognizer({"happy": 1}))
    answers = (photo_tab.answer(two_faces, 0, asked, False, False) for asked in (False, True))
    plain, dotted = (Image.open(answer[SAVE_PHOTO].value["path"]) for answer in answers)
    assert np.abs(np.asarray(plain).astype(int) - np.asarray(dotted)).max() > 60


def test_the_threshold_for_not_sure_comes_from_the_record(two_faces):
    sure, unsure = (ScriptedRecognizer({"happy": 0.7, "sad": 0.3}, not_sure_below=limit) for limit in (0.6, 0.8))
    assert "Happy" in tab(sure).answer(two_faces, 0, False, False, False)[PANEL]
    assert "Not sure" in tab(unsure).answer(two_faces, 0, False, False, False)[PANEL]


def test_no_face_is_a_message_that_helps_and_not_a_guess(uploads):
    Image.linear_gradient("L").save(uploads / "gradient.png")
    answer = tab(ScriptedRecognizer()).answer({"path": str(uploads / "gradient.png")}, None, False, False, False)
    assert "No face found" in answer[PANEL] and "Try a closer or brighter photo" in answer[PANEL]
    assert not answer[ANNOTATED].visible and not answer[MORE].visible


@pytest.mark.parametrize("kind", REFUSALS)
def test_the_page_refuses_a_bad_file_before_the_model_sees_it(uploads, kind):
    photo_tab = PhotoTab(
        Reader(SimpleNamespace(record={}, predict=None), Settings(max_photo_mb=1))
    )  # calling it would raise TypeError
    answer = photo_tab.answer({"path": str(write_refused(uploads, kind))}, None, False, False, False)
    assert re.search(REFUSALS[kind], answer[PANEL])


def test_a_photo_that_was_deleted_meanwhile_is_asked_for_again(uploads):
    answer = tab(ScriptedRecognizer()).answer({"path": str(uploads / "gone.jpg")}, None, True, False, False)
    assert "Add it again" in answer[PANEL]


def test_removing_the_photo_empties_the_answer():
    answer = tab(ScriptedRecognizer()).answer(None, 1, True, False, True)
    assert "The answer appears here" in answer[PANEL]
    assert not any(answer[part].visible for part in (ANNOTATED, FACES, MORE))


def test_file_names_cannot_smuggle_markup_into_the_page(uploads):
    (uploads / "x.jpg").write_bytes(ASTRONAUT.read_bytes())
    photo = {"path": str(uploads / "x.jpg"), "orig_name": "<img src=x onerror=alert(1)>.jpg"}
    answer = tab(ScriptedRecognizer({"happy": 1})).answer(photo, None, False, False, False)
    assert "<img" not in answer[PANEL]
    assert "<" not in Path(answer[SAVE_PHOTO].value["path"]).name
