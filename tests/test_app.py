"""Contracts of gradio_app.py, without a browser: the endpoints through gradio_client, the command line, the process."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from page_support import ASTRONAUT, REFUSALS, ROOT, ScriptedRecognizer, free_port, running_page, write_refused
from PIL import Image, ImageOps

import gradio_app
from emotion.labels import EMOTIONS
from page.about import about_html
from page.photo import PhotoTab
from page.reading import Reader
from page.uploads import KEEP_MINUTES, Settings


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


def test_the_public_endpoints_are_these(client):
    endpoints = client.view_api(print_info=False, return_format="dict")
    assert sorted(endpoints["named_endpoints"]) == ["/predict", "/predict_batch", "/predict_video"]
    assert endpoints["unnamed_endpoints"] == {}


# The page's answers


def test_photos_are_deleted_from_the_disk_after_their_time_and_examples_stay(uploads, tmp_path):
    (tmp_path / "visitor.jpg").write_bytes(ASTRONAUT.read_bytes())
    demo = gradio_app.build_demo(ScriptedRecognizer({"happy": 1}))
    assert demo.delete_cache == (60, 60 * KEEP_MINUTES)
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


def test_about_states_the_accuracy_of_the_record_with_its_interval_and_confusion_matrix():
    recalls = {name: {"recall": {"value": 0.5 + i / 20}} for i, name in enumerate(EMOTIONS)}
    confusion = (np.eye(7, dtype=int) * 30 + 10).tolist()
    accuracy = {"value": 0.6543, "low": 0.6386, "high": 0.6697}
    scores = {"n": 3589, "accuracy": accuracy, "per_class": recalls, "confusion": confusion}
    text = about_html({"metrics": {"private_test": scores}}, Settings())
    for stated in ("65.4%", "63.9%", "67.0%", "3,589", "best at neutral", "worst at angry"):
        assert stated in text
    assert re.findall(r"<td style[^>]*>(\d+%)", text) == [f"{share:.0%}" for row in confusion for share in np.divide(row, 100)]
    assert "without a record of its accuracy" in about_html({}, Settings())


def test_about_says_what_else_the_model_had_learned_from():
    text = about_html({"pretrained_on": ["faces & cats", "dogs"]}, Settings())
    assert "had learned from other pictures: faces &amp; cats; dogs." in text
    assert "other pictures" not in about_html({}, Settings())


def test_kept_uploads_are_stored_once_and_said_in_plain_sight(uploads, tmp_path):
    recognizer, settings = ScriptedRecognizer({"happy": 1}), Settings(keep_folder=tmp_path / "kept")
    settings.keep_folder.mkdir()
    tab = PhotoTab(Reader(recognizer, settings))
    (uploads / "me.jpg").write_bytes(ASTRONAUT.read_bytes())
    photo = {"path": str(uploads / "me.jpg"), "orig_name": "../me.jpg"}
    for landmarks in (False, True):
        tab.answer(photo, None, landmarks, False, False)
    [kept] = settings.keep_folder.iterdir()
    assert kept.read_bytes() == ASTRONAUT.read_bytes()
    said = "keep every photo and clip that is added"
    assert said in page_text(gradio_app.build_demo(recognizer, settings))
    assert said not in page_text(gradio_app.build_demo(recognizer))
    assert "deleted after 15 minutes" in page_text(gradio_app.build_demo(recognizer))


def page_text(demo) -> str:
    """The HTML of a built page that stands outside of its About tab."""
    parts = [part["props"].get("value") for part in demo.get_config_file()["components"] if part["type"] == "html"]
    return " ".join(part for part in parts if part and "What this page does" not in part)


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
    assert all(option in text for option in ("--host", "--port", "--share", "--max-file-size", "--auth", "--keep-uploads"))


@pytest.mark.parametrize("size", ["0", "-1", "big"])
def test_a_size_limit_that_is_no_positive_number_is_refused(size, capsys):
    with pytest.raises(SystemExit):
        gradio_app.parse(["--max-file-size", size])
    assert "--max-file-size" in capsys.readouterr().err


@pytest.mark.parametrize("auth", ["", "ada", "ada:", ":secret"])
def test_a_name_without_a_password_is_refused(auth, capsys):
    with pytest.raises(SystemExit):
        gradio_app.parse(["--auth", auth])
    assert "--auth must be a name and a password" in capsys.readouterr().err


def test_with_a_password_only_those_who_know_it_are_answered(tmp_path):
    with running_page("--auth", "ada:a-long-secret", TMPDIR=str(tmp_path)) as (address, _):
        assert httpx.get(f"{address}/config").status_code == 401
        with pytest.raises(Exception, match="(?i)login|credentials|auth"):
            Client(address, auth=("ada", "guess"), verbose=False)
        client = Client(address, auth=("ada", "a-long-secret"), verbose=False, download_files=tmp_path)
        assert len(predict(client, ASTRONAUT)[1]["faces"]) == 1


def test_a_folder_for_uploads_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        gradio_app.parse(["--keep-uploads", str(tmp_path / "file" / "folder")])
    assert "--keep-uploads must be a folder" in capsys.readouterr().err


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
    monkeypatch.setattr("emotion.recognizer.DEFAULT_MODEL", tmp_path / "emotion_model_int8.tflite")
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
