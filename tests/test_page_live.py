"""Contracts of the Live tab: frames in as the browser sends them, words and boxes out."""

import base64
import html
import json
import re
from io import BytesIO

import numpy as np
import pytest
from page_support import ASTRONAUT, ScriptedRecognizer
from PIL import Image

from page.live import LiveTab
from page.reading import Reader


def frame(picture: Image.Image) -> dict:
    """A camera frame as Gradio's webcam sends it."""
    file = BytesIO()
    picture.convert("RGB").save(file, "JPEG")
    return {"path": None, "url": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()}


def boxes(panel: str) -> list[dict]:
    return json.loads(html.unescape(re.search(r'data-faces="([^"]*)"', panel)[1]))


def live(*rows) -> LiveTab:
    return LiveTab(Reader(ScriptedRecognizer(*rows)))


@pytest.fixture
def astronaut() -> Image.Image:
    return Image.open(ASTRONAUT)


def test_a_frame_gives_the_emotion_in_words_and_the_box_as_fractions_of_the_picture(astronaut):
    panel, _ = live({"happy": 0.9, "fear": 0.1}).answer(frame(astronaut), None)
    assert "Happy 90%" in panel
    [drawn] = boxes(panel)
    x, y, width, height = drawn["box"]
    assert x < 225 / 512 < x + width and y < 120 / 512 < y + height  # her nose
    assert "Happy 90%" in drawn["text"] and re.fullmatch("#[0-9A-F]{6}", drawn["colour"])


def test_a_larger_picture_gives_the_same_fractions(astronaut):
    small, large = (live({"happy": 1}).answer(frame(p), None)[0] for p in (astronaut, astronaut.resize((1600, 1600))))
    np.testing.assert_allclose(boxes(small)[0]["box"], boxes(large)[0]["box"], atol=0.03)


def test_answers_are_smoothed_over_the_frames_of_one_session(astronaut):
    recognizer = ScriptedRecognizer({"happy": 1})
    tab = LiveTab(Reader(recognizer))
    _, session = tab.answer(frame(astronaut), None)
    recognizer.rows = ({"sad": 1},)
    smoothed, _ = tab.answer(frame(astronaut), session)
    fresh, _ = tab.answer(frame(astronaut), None)
    assert "Sad" in boxes(fresh)[0]["text"]
    assert "Happy" in boxes(smoothed)[0]["text"]  # one frame does not turn the answer round


def test_without_a_face_no_box_is_left_and_the_panel_helps():
    panel, _ = live({"happy": 1}).answer(frame(Image.linear_gradient("L").resize((640, 480))), None)
    assert boxes(panel) == []
    assert "No face in view" in panel


def test_every_face_gets_a_box_and_the_largest_one_the_bars(astronaut):
    pair = Image.new("RGB", (900, 512))
    pair.paste(astronaut, (0, 0))
    pair.paste(astronaut.resize((360, 360)), (530, 0))
    panel, _ = live({"happy": 1}, {"sad": 1}).answer(frame(pair), None)
    assert len(boxes(panel)) == 2
    assert re.search(r"<h2>[^<]*Happy", panel) and re.search(r"<li>[^<]*Sad", panel)


def test_a_broken_frame_is_said_and_the_session_goes_on(astronaut):
    tab = live({"happy": 1})
    _, session = tab.answer(frame(astronaut), None)
    panel, kept = tab.answer({"path": None, "url": "data:image/jpeg;base64,AAAA"}, session)
    assert "cannot be used" in panel and kept is session


def test_when_the_camera_stops_everything_about_it_is_forgotten(astronaut):
    tab = live({"happy": 1})
    _, session = tab.answer(frame(astronaut), None)
    assert tab.answer(None, session)[1] is None


def test_frames_are_not_written_anywhere(astronaut, uploads):
    live({"happy": 1}).answer(frame(astronaut), None)
    assert not list(uploads.rglob("*"))
