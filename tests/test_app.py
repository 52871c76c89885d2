"""Contracts of gradio_app.py, without a browser: handlers called directly, and `/predict` through gradio_client."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageOps

import gradio_app
from emotion.faces import FaceFinder, read_image
from emotion.labels import EMOTIONS, FOUR_EMOTIONS
from emotion.recognizer import Face

ROOT = Path(__file__).resolve().parent.parent
ASTRONAUT = ROOT / "tests" / "data" / "astronaut.jpg"
HOPPER = ROOT / "tests" / "data" / "grace_hopper.jpg"
ANNOTATED, FACES, PANEL, MORE, SAVE_PHOTO, SAVE_DATA = range(6)  # what Handlers.answer fills


class ScriptedRecognizer:
    """Finds faces for real and gives them, from left to right, the probabilities that the test chose."""

    def __init__(self, *rows: dict[str, float], **record):
        self.rows, self.record, self.finder = rows, record, FaceFinder()

    def predict(self, image) -> list[Face]:
        found = self.finder.find(read_image(image))
        rows = [np.array([row.get(emotion, 0) for emotion in EMOTIONS], np.float32) for row in self.rows]
        return [Face(f.box, f.score, f.landmarks, f.crop, row) for f, row in zip(found, rows, strict=False)]


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """The folder in which Gradio keeps uploads during this test."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


@pytest.fixture
def two_faces(uploads) -> dict:
    """Gradio's description of a photo of two faces, the larger one at the right."""
    small, large = Image.open(ASTRONAUT), Image.open(HOPPER)
    both = Image.new("RGB", (small.width + large.width, max(small.height, large.height)))
    both.paste(small, (0, 0))
    both.paste(large, (small.width, 0))
    both.save(uploads / "two.png")
    return {"path": str(uploads / "two.png"), "orig_name": "two.png"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page with the shipped model and a limit of 1 MB, served in this process: gives its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        demo = gradio_app.build_demo(max_file_mb=1)
        _, address, _ = demo.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True)
        yield address
        demo.close(verbose=False)


@pytest.fixture(scope="module")
def client(page, tmp_path_factory):
    return Client(page, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_page(*options: str, **environment: str) -> Iterator[tuple[str, list[str]]]:
    """Runs `python gradio_app.py` on a free port; gives its address and the lines it has printed; stops it at the end."""
    command = [sys.executable, "-u", str(ROOT / "gradio_app.py"), "--port", str(free_port()), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env={**os.environ, **environment}, **pipes)
    said, started = [], threading.Event()

    def listen():  # to the end, since a full pipe would stop the page
        for line in process.stdout:
            said.append(line)
            if "The page is at" in line:
                started.set()
        started.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        started.wait(120)
        found = re.search(r"The page is at (\S+)", "".join(said))
        assert found, "".join(said)
        yield found[1], said
    finally:
        process.terminate()
        process.wait(30)
        listener.join(30)
    assert process.returncode == 0, "".join(said)


def predict(client: Client, path: Path) -> tuple[str, dict]:
    return client.predict(handle_file(str(path)), api_name="/predict")


# The endpoint


def test_predict_gives_an_annotated_photo_and_one_entry_for_each_face(client):
    annotated, reading = predict(client, ASTRONAUT)
    assert set(reading) == {"faces", "ms"}
    assert reading["ms"] > 0
    [face] = reading["faces"]
    assert set(face) == {"box", "emotion", "probabilities", "landmarks"}
    assert list(face["probabilities"]) == list(EMOTIONS)
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert face["emotion"] == max(face["probabilities"], key=face["probabilities"].get)
    x, y, width, height = face["box"]
    assert x < 225 < x + width and y < 120 < y + height  # the astronaut's nose
    landmarks = np.array(face["landmarks"])
    assert landmarks.shape == (468, 2)
    assert (landmarks.mean(axis=0) > (x, y)).all() and (landmarks.mean(axis=0) < (x + width, y + height)).all()
    drawn = np.asarray(Image.open(annotated).convert("RGB")).astype(int)
    difference = np.abs(drawn - np.asarray(Image.open(ASTRONAUT).convert("RGB"))).sum(axis=2)
    assert difference[y : y + height, x].mean() > 50  # the box
    assert difference[400:, :100].mean() < 10  # the photo itself


def test_boxes_are_in_pixels_of_the_photo_as_it_is_seen_upright(client, tmp_path):
    upright = Image.open(ASTRONAUT).convert("RGB").crop((0, 0, 400, 512))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn a quarter clockwise to view"
    upright.save(tmp_path / "upright.png")
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    assert ImageOps.exif_transpose(Image.open(tmp_path / "turned.png")).tobytes() == upright.tobytes()
    expected, turned = (predict(client, tmp_path / name) for name in ("upright.png", "turned.png"))
    assert turned[1]["faces"] == expected[1]["faces"] != []
    assert Image.open(turned[0]).size == upright.size


def test_a_photo_without_a_face_gives_an_empty_list_and_the_photo_back(client, tmp_path):
    Image.linear_gradient("L").resize((640, 480)).save(tmp_path / "gradient.png")
    annotated, reading = predict(client, tmp_path / "gradient.png")
    assert reading["faces"] == []
    assert Image.open(annotated).size == (640, 480)


def test_a_photo_may_be_sent_as_a_data_url_in_one_request(page):
    data = {"url": "data:image/jpeg;base64," + base64.b64encode(ASTRONAUT.read_bytes()).decode()}
    event = httpx.post(f"{page}gradio_api/call/predict", json={"data": [data]}).json()["event_id"]
    answer = httpx.get(f"{page}gradio_api/call/predict/{event}").text
    assert "event: complete" in answer
    assert len(json.loads(answer.partition("data: ")[2])[1]["faces"]) == 1


def write_refused(folder: Path, kind: str) -> Path:
    """Writes a file that the page must refuse and returns its path."""
    if kind == "animation.gif":
        Image.open(ASTRONAUT).save(folder / kind)
    elif kind == "text.jpg":
        (folder / kind).write_text("not a photo")
    elif kind == "empty.png":
        (folder / kind).touch()
    elif kind == "cut.jpg":
        (folder / kind).write_bytes(ASTRONAUT.read_bytes()[:20_000])
    elif kind == "large.png":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)).save(folder / kind)
    return folder / kind


REFUSALS = {
    "animation.gif": r"not a photo of a type .* Save it as \.jpg, \.png, \.webp or \.bmp",
    "text.jpg": r"not a photo of a type .* Save it as \.jpg, \.png, \.webp or \.bmp",
    "empty.png": r"not a photo of a type .* Save it as \.jpg, \.png, \.webp or \.bmp",
    "cut.jpg": r"save it again as JPEG or PNG",
    "large.png": r"has 1\.5 MB; at most 1 MB .* Make the photo smaller",
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_the_endpoint_refuses_a_bad_file_with_a_sentence_that_says_what_to_do(client, tmp_path, kind):
    with pytest.raises(AppError, match=REFUSALS[kind]):
        predict(client, write_refused(tmp_path, kind))


@pytest.mark.parametrize("image", [{"path": str(ASTRONAUT)}, {"path": "/etc/passwd"}, {}, None, "photo.jpg", {"url": "data:,%"}])
def test_only_uploaded_files_are_read_whatever_path_a_client_names(page, image):
    event = httpx.post(f"{page}gradio_api/call/predict", json={"data": [image]}).json()["event_id"]
    answer = httpx.get(f"{page}gradio_api/call/predict/{event}").text
    assert "event: error" in answer
    assert re.search(r"uploads are deleted|must be an uploaded file|no valid base64|not a photo", answer)


def test_predict_is_the_only_public_endpoint(client):
    endpoints = client.view_api(print_info=False, return_format="dict")
    assert list(endpoints["named_endpoints"]) == ["/predict"]
    assert endpoints["unnamed_endpoints"] == {}


# The page's answers


def test_the_largest_face_is_explained_first_and_every_face_can_be_chosen(two_faces):
    handlers = gradio_app.Handlers(ScriptedRecognizer({"happy": 1}, {"sad": 1}))
    answer = handlers.answer(two_faces, None, False, False)
    assert answer[FACES].value == 1 and answer[FACES].visible
    assert [label for label, _ in answer[FACES].choices] == ["1 😄 happy", "2 😢 sad"]
    assert "Sad" in answer[PANEL] and "mouth corners turned down" in answer[PANEL]
    assert "Happy" in handlers.answer(two_faces, 0, False, False)[PANEL]
    assert handlers.answer(two_faces, 7, False, False)[FACES].value == 1  # no such face


def test_a_click_on_a_face_chooses_it_and_a_click_beside_faces_changes_nothing(two_faces):
    handlers = gradio_app.Handlers(ScriptedRecognizer({"happy": 1}, {"sad": 1}))
    on_the_left_face, on_no_face = SimpleNamespace(index=[225, 120]), SimpleNamespace(index=[5, 500])
    assert handlers.answer_click(two_faces, 1, False, False, on_the_left_face)[FACES].value == 0
    assert handlers.answer_click(two_faces, 1, False, False, on_no_face)[FACES].value == 1


def test_a_click_finds_the_face_also_when_the_shown_photo_is_enlarged(two_faces, uploads):
    Image.open(two_faces["path"]).reduce(4).save(uploads / "small.png")
    handlers = gradio_app.Handlers(ScriptedRecognizer({"happy": 1}, {"sad": 1}))
    shown = Image.open(handlers.answer({"path": str(uploads / "small.png")}, None, False, False)[SAVE_PHOTO].value["path"])
    assert shown.width == 2 * Image.open(uploads / "small.png").width
    on_the_left_face = SimpleNamespace(index=[2 * 225 / 4, 2 * 120 / 4])
    assert handlers.answer_click({"path": str(uploads / "small.png")}, 1, False, False, on_the_left_face)[FACES].value == 0


def test_one_face_needs_no_chooser_and_brings_both_downloads(uploads):
    (uploads / "me & you.jpg").write_bytes(ASTRONAUT.read_bytes())
    photo = {"path": str(uploads / "me & you.jpg"), "orig_name": "me & you.jpg"}
    answer = gradio_app.Handlers(ScriptedRecognizer({"happy": 0.9, "fear": 0.1})).answer(photo, None, False, False)
    assert not answer[FACES].visible and answer[MORE].visible
    assert Path(answer[SAVE_PHOTO].value["path"]).name == "me-you-emotions.jpg"
    saved = json.loads(Path(answer[SAVE_DATA].value["path"]).read_text())
    assert saved["faces"][0]["probabilities"]["happy"] == pytest.approx(0.9)


def test_everything_written_lies_where_it_is_deleted_again(two_faces, uploads):
    handlers = gradio_app.Handlers(ScriptedRecognizer({"happy": 1}, {"sad": 1}))
    before = set(uploads.rglob("*"))
    handlers.answer(two_faces, None, True, False)
    handlers.predict(two_faces)
    written = {path.suffix for path in set(uploads.rglob("*")) - before if path.is_file()}
    assert written == {".jpg", ".json"}


@pytest.mark.parametrize("four, names", [(False, EMOTIONS), (True, FOUR_EMOTIONS)])
def test_every_emotion_of_the_chosen_view_gets_a_bar(two_faces, four, names):
    panel = gradio_app.Handlers(ScriptedRecognizer({"happy": 0.6, "angry": 0.4})).answer(two_faces, 0, False, four)[PANEL]
    assert sorted(re.findall(r"</span> (\w+)</span><span class=\"track\"", panel)) == sorted(names)
    assert re.findall(r"class=\"value\">([^<]+)<", panel) == ["60%", "40%"] + ["0%"] * (len(names) - 2)
    assert re.search(r"1 face read in \d+ ms", panel)


def test_landmarks_are_drawn_only_when_asked_for(two_faces):
    handlers = gradio_app.Handlers(ScriptedRecognizer({"happy": 1}))
    plain, dotted = (Image.open(handlers.answer(two_faces, 0, asked, False)[SAVE_PHOTO].value["path"]) for asked in (False, True))
    assert np.abs(np.asarray(plain).astype(int) - np.asarray(dotted)).max() > 60


def test_the_threshold_for_not_sure_comes_from_the_record(two_faces):
    sure, unsure = (ScriptedRecognizer({"happy": 0.7, "sad": 0.3}, not_sure_below=limit) for limit in (0.6, 0.8))
    assert "Happy" in gradio_app.Handlers(sure).answer(two_faces, 0, False, False)[PANEL]
    assert "Not sure" in gradio_app.Handlers(unsure).answer(two_faces, 0, False, False)[PANEL]


def test_no_face_is_a_message_that_helps_and_not_a_guess(uploads):
    Image.linear_gradient("L").save(uploads / "gradient.png")
    answer = gradio_app.Handlers(ScriptedRecognizer()).answer({"path": str(uploads / "gradient.png")}, None, False, False)
    assert "No face found" in answer[PANEL] and "Try a closer or brighter photo" in answer[PANEL]
    assert not answer[ANNOTATED].visible and not answer[MORE].visible


@pytest.mark.parametrize("kind", REFUSALS)
def test_the_page_refuses_a_bad_file_before_the_model_sees_it(uploads, kind):
    handlers = gradio_app.Handlers(SimpleNamespace(record={}, predict=None), max_file_mb=1)  # calling it would raise TypeError
    answer = handlers.answer({"path": str(write_refused(uploads, kind))}, None, False, False)
    assert re.search(REFUSALS[kind], answer[PANEL])


def test_a_photo_that_was_deleted_meanwhile_is_asked_for_again(uploads):
    answer = gradio_app.Handlers(ScriptedRecognizer()).answer({"path": str(uploads / "gone.jpg")}, None, True, False)
    assert "Add it again" in answer[PANEL]


def test_removing_the_photo_empties_the_answer():
    answer = gradio_app.Handlers(ScriptedRecognizer()).answer(None, 1, True, True)
    assert "The answer appears here" in answer[PANEL]
    assert not any(answer[part].visible for part in (ANNOTATED, FACES, MORE))


def test_file_names_cannot_smuggle_markup_into_the_page(uploads):
    (uploads / "x.jpg").write_bytes(ASTRONAUT.read_bytes())
    photo = {"path": str(uploads / "x.jpg"), "orig_name": "<img src=x onerror=alert(1)>.jpg"}
    answer = gradio_app.Handlers(ScriptedRecognizer({"happy": 1})).answer(photo, None, False, False)
    assert "<img" not in answer[PANEL]
    assert "<" not in Path(answer[SAVE_PHOTO].value["path"]).name


def test_photos_are_deleted_from_the_disk_after_their_time_and_examples_stay(uploads, tmp_path):
    (tmp_path / "visitor.jpg").write_bytes(ASTRONAUT.read_bytes())
    demo = gradio_app.build_demo(ScriptedRecognizer({"happy": 1}))
    assert demo.delete_cache == (60, 60 * gradio_app.KEEP_MINUTES)
    demo.delete_cache = (1, 1)  # seconds
    _, address, _ = demo.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True)
    try:
        predict(Client(address, verbose=False, download_files=tmp_path / "downloads"), tmp_path / "visitor.jpg")
        assert list(uploads.rglob("visitor*"))
        deadline = time.monotonic() + 30
        while list(uploads.rglob("visitor*")) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not list(uploads.rglob("visitor*"))
        assert list(uploads.rglob("astronaut.jpg"))
    finally:
        demo.close(verbose=False)


# The About text


def test_about_states_the_accuracy_of_the_record_with_its_interval():
    recalls = {name: {"recall": {"value": 0.5 + i / 20}} for i, name in enumerate(EMOTIONS)}
    scores = {"n": 3589, "accuracy": {"value": 0.6543, "low": 0.6386, "high": 0.6697}, "per_class": recalls}
    text = gradio_app.about_html({"metrics": {"private_test": scores}}, 15)
    for stated in ("65.4%", "63.9%", "67.0%", "3,589", "best at neutral", "worst at angry"):
        assert stated in text
    assert "without a record of its accuracy" in gradio_app.about_html({}, 15)


# The command line


def test_importing_launches_nothing_writes_nothing_and_loads_no_training_library(tmp_path):
    heavy = "tensorflow", "keras", "jax", "mediapipe", "matplotlib", "sklearn", "torch"
    code = (
        "import sys, threading, gradio, gradio_app\n"
        f"assert not set({heavy!r}) & set(sys.modules), 'heavy import'\n"
        "assert not any(isinstance(value, gradio.Blocks) for value in vars(gradio_app).values()), 'page built'\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        gradio_app.parse(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--host", "--port", "--share", "--max-file-size"))


@pytest.mark.parametrize("size", ["0", "-1", "big"])
def test_a_size_limit_that_is_no_positive_number_is_refused(size, capsys):
    with pytest.raises(SystemExit):
        gradio_app.parse(["--max-file-size", size])
    assert "--max-file-size" in capsys.readouterr().err


def test_a_host_that_is_not_this_computer_is_refused(capsys):
    with pytest.raises(SystemExit):
        gradio_app.parse(["--host", "192.0.2.1"])  # an address reserved for documentation
    assert "--host must be an address of this computer" in capsys.readouterr().err


def test_a_chosen_port_that_is_taken_ends_with_a_sentence(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as stop:
            gradio_app.parse(["--port", str(port)])
    assert stop.value.code == 1
    assert f"Port {port} is not free" in capsys.readouterr().err


def test_without_a_port_the_next_free_one_is_taken_and_said(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(gradio_app, "PORT", taken.getsockname()[1])
        options = gradio_app.parse([])
        assert options.port > gradio_app.PORT
    assert f"uses {options.port}" in capsys.readouterr().out


def test_a_missing_model_ends_with_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("emotion.recognizer.DEFAULT_MODEL", tmp_path / "emotion_model.tflite")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # main() sets it; undone after the test
    with pytest.raises(SystemExit, match=r"The page cannot start\. .*Not found"):
        gradio_app.main(["--port", str(free_port())])


def test_share_without_a_tunnel_says_why_and_serves_locally(tmp_path):
    nowhere = f"http://127.0.0.1:{free_port()}"  # a proxy that is not there: the tunnel cannot be asked for
    with running_page("--share", HTTPS_PROXY=nowhere, HF_HOME=str(tmp_path / "hf"), TMPDIR=str(tmp_path)) as (address, said):
        text = "".join(said)
        assert "Everyone who has it can use this page" in text
        assert "Could not create share link" in text and "There is no public link" in text
        assert "Traceback" not in text
        assert httpx.get(address).status_code == 200
    assert not list(tmp_path.glob("facial-emotion-*")), "uploaded photos were left behind"
