"""Contracts of the Photo tab: its photo_tab called directly, with scripted answers."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from page_support import ASTRONAUT, REFUSALS, ScriptedRecognizer, write_refused
from PIL import Image

from emotion.faces import eyes_and_mouth
from emotion.labels import EMOTIONS, FOUR_EMOTIONS
from emotion.recognizer import Face
from gradio_app import build_demo
from page.photo import PhotoTab
from page.reading import Reader
from page.uploads import Settings

ANNOTATED, FACES, PANEL, OPTIONS, FILES, SAVE_PHOTO, SAVE_DATA = range(7)  # what PhotoTab.answer fills


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
    assert not answer[FACES].visible and answer[OPTIONS].visible and answer[FILES].visible
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


def test_the_heat_map_is_laid_over_the_chosen_face_alone_when_asked_for(two_faces):
    photo_tab = tab(ScriptedRecognizer({"happy": 1}, {"sad": 1}, evidence=np.ones((6, 6, 7), np.float32)))
    answers = (photo_tab.answer(two_faces, 0, False, asked, False) for asked in (False, True))
    plain, heated = (np.asarray(Image.open(answer[SAVE_PHOTO].value["path"])).astype(int) for answer in answers)
    changed = np.abs(plain - heated).max(axis=2) > 40
    assert changed[100:140, 205:245].mean() > 0.9  # the astronaut's face, which was chosen
    assert changed[:, 512:].mean() < 0.001  # the other half of the picture


def test_a_model_without_evidence_changes_nothing_in_the_photo_and_offers_no_heat_map(two_faces):
    recognizer = ScriptedRecognizer({"happy": 1}, {"sad": 1})
    answers = (tab(recognizer).answer(two_faces, 0, False, asked, False) for asked in (False, True))
    plain, heated = (Path(answer[SAVE_PHOTO].value["path"]).read_bytes() for answer in answers)
    assert plain == heated
    assert not toggle(recognizer)["visible"] and toggle(ScriptedRecognizer(evidence=np.ones((6, 6, 7))))["visible"]


def toggle(recognizer) -> dict:
    components = build_demo(recognizer).get_config_file()["components"]
    [found] = (part["props"] for part in components if part["props"].get("label") == "Where the model looked")
    return found


def test_what_the_face_shows_is_said_with_the_measured_ratios(two_faces):
    panel = tab(ScriptedRecognizer({"happy": 1}, {"sad": 1})).answer(two_faces, 0, False, False, False)[PANEL]
    assert re.search(r"mouth open <span>0\.\d\d, neutral faces 0\.03", panel)  # she laughs


def test_a_head_turned_far_gets_no_ratios_but_the_reason(two_faces):
    recognizer = ScriptedRecognizer({"happy": 1}, {"sad": 1})
    found = recognizer.predict(two_faces["path"])[0]
    _, right, _ = eyes_and_mouth(found.landmarks)
    turned = found.landmarks.copy()
    turned[1] = right  # the tip of the nose
    face = Face(found.box, found.score, turned, found.crop, found.probabilities)
    panel = tab(SimpleNamespace(record={}, predict=lambda image: [face])).answer(two_faces, 0, False, False, False)[PANEL]
    assert "turned too far" in panel and "neutral faces 0" not in panel


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
    assert not any(answer[part].visible for part in (ANNOTATED, OPTIONS, FILES))


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
    assert not any(answer[part].visible for part in (ANNOTATED, FACES, OPTIONS, FILES))


def test_file_names_cannot_smuggle_markup_into_the_page(uploads):
    (uploads / "x.jpg").write_bytes(ASTRONAUT.read_bytes())
    photo = {"path": str(uploads / "x.jpg"), "orig_name": "<img src=x onerror=alert(1)>.jpg"}
    answer = tab(ScriptedRecognizer({"happy": 1})).answer(photo, None, False, False, False)
    assert "<img" not in answer[PANEL]
    assert "<" not in Path(answer[SAVE_PHOTO].value["path"]).name
