"""The page as a visitor meets it: the real program in a process of its own, the shipped model, a real Chromium.

`SCREENSHOTS=docs pytest tests/test_app_browser.py` also renews the pictures of the page in docs/.
"""

import os
import re
import shutil
from io import BytesIO
from pathlib import Path
from urllib.parse import urlparse

import pytest
from page_support import ASTRONAUT, HOPPER, running_page
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -r requirements.txt")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
Axe, expect = axe.Axe, sync_api.expect

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]

DESKTOP = {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: install it, or name its executable in $CHROMIUM"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The page's address; when it has stopped, nothing went wrong in it and no file of it is left."""
    temporary = tmp_path_factory.mktemp("tmp")
    with running_page(TMPDIR=str(temporary)) as (address, said):
        yield address
    assert "Traceback" not in "".join(said), "".join(said)
    assert not list(temporary.glob("facial-emotion-*")), "uploaded photos were left behind"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A Chromium whose camera shows the astronaut."""
    camera = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    frame = BytesIO()
    Image.open(ASTRONAUT).crop((0, 0, 512, 384)).resize((640, 480)).save(frame, "JPEG", quality=95, subsampling="4:2:0")
    camera.write_bytes(frame.getvalue() * 30)
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", f"--use-file-for-fake-video-capture={camera}"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET + fake)
        yield browser
        browser.close()


class Visit:
    """One visitor's look at the page, with everything that the browser fetched or complained about."""

    def __init__(self, context, address: str):
        self.page = context.new_page()
        self.hosts, self.complaints = set(), []
        self.page.on("request", lambda request: self.hosts.add(urlparse(request.url).hostname))
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.answer = self.page.locator("#answer")
        expect(self.answer).to_contain_text("The answer appears here", timeout=30_000)

    def upload(self, path: Path) -> None:
        self.page.locator("#photo input[type=file]").set_input_files(path)

    def photograph(self, name: str) -> None:
        """Keeps a picture of what the visitor sees, when $SCREENSHOTS names a folder for it."""
        if folder := os.environ.get("SCREENSHOTS"):
            self.page.wait_for_timeout(1000)  # until nothing moves any more
            self.page.screenshot(path=Path(folder) / name)

    @property
    def headline(self):
        return self.answer.locator("h2")


@pytest.fixture(params=[DESKTOP], ids=["desktop"])
def visit(request, server, chromium):
    context = chromium.new_context(**request.param)
    visit = Visit(context, server)
    yield visit
    context.close()
    assert visit.complaints == []
    assert visit.hosts - {None} == {"127.0.0.1"}, "the page must work without a network"


CAMERA_SHOWS = """() => {
    const video = document.querySelector("#photo video");
    return video && video.readyState >= 3 && video.videoWidth > 0 && video.currentTime > 0.5;
}"""

BOX_IS_DRAWN = """() => {
    const canvas = document.querySelector("#live canvas.boxes");
    if (!canvas) return false;
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels.some((value) => value > 0);
}"""

COPY_FIRST_EXAMPLE = """async () => {
    const bitmap = await createImageBitmap(await (await fetch(document.querySelector("#examples img").src)).blob());
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    const photo = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    await navigator.clipboard.write([new ClipboardItem({ "image/png": photo })]);
}"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """A photo of two faces, the larger one at the right."""
    left, right = Image.open(ASTRONAUT), Image.open(HOPPER)
    both = Image.new("RGB", (left.width + right.width, max(left.height, right.height)))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    path = tmp_path_factory.mktemp("photos") / "pair.png"
    both.save(path)
    return path


@pytest.mark.parametrize(
    "visit, picture", [(DESKTOP, "screenshot.png"), (PHONE, "screenshot_phone.png")], indirect=["visit"], ids=["desktop", "phone"]
)
def test_an_uploaded_photo_is_answered_with_the_right_emotion_and_seven_probabilities(visit, picture):
    visit.upload(ASTRONAUT)
    expect(visit.headline).to_have_text(re.compile(r"Happy >?\d+%"), timeout=30_000)  # she smiles
    percents = visit.answer.locator(".bars .value").all_inner_texts()
    assert len(percents) == 7
    assert 95 <= sum(int(percent.strip(">%")) for percent in percents if percent != "<1%") <= 103
    expect(visit.answer).to_contain_text(re.compile(r"1 face read in \d+ ms"))
    annotated = visit.page.locator("#annotated img")
    expect(annotated).to_be_in_viewport()
    assert annotated.evaluate("image => image.naturalWidth") == 512
    assert visit.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "must not scroll sideways"
    visit.photograph(picture)


@pytest.mark.parametrize("visit", [DESKTOP, {**DESKTOP, "color_scheme": "dark"}], indirect=True, ids=["light", "dark"])
def test_no_tab_breaks_a_rule_of_accessibility_that_hurts(visit):
    visit.upload(ASTRONAUT)
    expect(visit.answer).to_contain_text("1 face read", timeout=30_000)
    tabs = visit.page.get_by_role("tab").all_inner_texts()
    assert {"Photo", "Live", "About"} <= set(tabs)
    for tab in tabs:
        visit.page.get_by_role("tab", name=tab, exact=True).click()
        visit.page.wait_for_timeout(500)  # until nothing fades any more
        found = Axe().run(visit.page).response["violations"]
        hurts = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
        assert not hurts, f"{tab}: {hurts}"


def test_an_example_is_answered_on_click(visit):
    visit.page.locator("#examples button").first.click()
    expect(visit.answer).to_contain_text("1 face read", timeout=30_000)


@pytest.mark.parametrize("visit", [{"permissions": ["camera"]}], indirect=True, ids=["camera"])
def test_a_still_from_the_webcam_is_answered(visit):
    visit.page.get_by_label("Capture from camera").click()
    visit.page.get_by_text("Click to Access Webcam").click()
    # A still taken before the camera's first frame is black, in the test as in life.
    visit.page.wait_for_function(CAMERA_SHOWS)
    visit.page.get_by_label("capture photo").click()
    expect(visit.answer).to_contain_text("1 face read", timeout=30_000)


@pytest.mark.parametrize("visit", [{"permissions": ["clipboard-read", "clipboard-write"]}], indirect=True, ids=["clipboard"])
def test_a_photo_is_pasted_from_the_clipboard(visit):
    visit.page.locator("#examples img").first.wait_for()
    visit.page.evaluate(COPY_FIRST_EXAMPLE)
    visit.page.get_by_label("Paste from clipboard").click()
    expect(visit.answer).to_contain_text("1 face read", timeout=30_000)


@pytest.mark.parametrize("visit", [{**DESKTOP, "permissions": ["camera"]}], indirect=True, ids=["camera"])
def test_the_camera_is_answered_live_and_let_go_on_stop(visit):
    visit.page.get_by_role("tab", name="Live").click()
    panel, video = visit.page.locator("#live-answer"), visit.page.locator("#live video")
    for _ in range(2):  # it can be started again
        expect(visit.page.get_by_text("Nothing opens before you press the button")).to_be_visible()
        assert video.count() == 0
        visit.page.locator("#live-start").click()
        expect(panel).to_contain_text(re.compile(r"Happy >?\d+%"), timeout=30_000)  # she smiles
        visit.page.wait_for_function(BOX_IS_DRAWN)
        visit.page.evaluate("window.cameraTrack = document.querySelector('#live video').srcObject.getTracks()[0]")
        visit.photograph("screenshot_live.png")
        visit.page.locator("#live-stop").click()
        expect(panel.locator("h2")).to_have_text("The answer appears here")
        expect(video).to_have_count(0)
        assert visit.page.evaluate("window.cameraTrack.readyState") == "ended"


def test_without_a_face_the_page_says_so_and_helps(visit, tmp_path):
    Image.linear_gradient("L").resize((640, 480)).save(tmp_path / "gradient.png")
    visit.upload(tmp_path / "gradient.png")
    expect(visit.headline).to_have_text("No face found", timeout=30_000)
    expect(visit.answer).to_contain_text("Try a closer or brighter photo")


def test_a_file_that_is_no_photo_is_refused_with_a_sentence(visit, tmp_path):
    (tmp_path / "text.jpg").write_text("not a photo")
    visit.upload(tmp_path / "text.jpg")
    expect(visit.answer).to_contain_text("Save it as .jpg, .png, .webp or .bmp", timeout=30_000)


def test_faces_are_chosen_by_list_or_by_click_and_the_toggles_change_the_view(visit, pair):
    visit.upload(pair)
    expect(visit.answer).to_contain_text("2 faces read", timeout=30_000)
    chooser = visit.page.locator("#faces input[type=radio]")
    expect(chooser.nth(1)).to_be_checked()  # the larger face
    chooser.nth(0).check()
    expect(visit.headline).to_contain_text("Happy")
    picture = visit.page.locator("#annotated img")
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.5})
    expect(chooser.nth(1)).to_be_checked()
    before = picture.get_attribute("src")
    visit.page.get_by_label("Show the 468 landmarks").check()
    expect(picture).not_to_have_attribute("src", before)
    visit.page.get_by_label("Only four emotions").check()
    expect(visit.answer.locator(".bars li")).to_have_count(4)
    expect(chooser.nth(1)).to_be_checked()


def test_the_annotated_photo_and_the_numbers_can_be_downloaded(visit):
    visit.upload(ASTRONAUT)
    for button, name in (("Download the photo", "astronaut-emotions.jpg"), ("Download the numbers", "astronaut-emotions.json")):
        with visit.page.expect_download() as download:
            visit.page.get_by_text(button).click(timeout=30_000)
        assert download.value.suggested_filename == name


def test_removing_the_photo_empties_the_answer(visit):
    visit.upload(ASTRONAUT)
    expect(visit.answer).to_contain_text("1 face read", timeout=30_000)
    visit.page.get_by_label("Remove Image").click()
    expect(visit.headline).to_have_text("The answer appears here")
    expect(visit.page.locator("#annotated img")).to_be_hidden()


def test_about_states_the_measured_accuracy_and_what_happens_to_photos(visit):
    visit.page.get_by_role("tab", name="About").click()
    about = visit.page.locator(".about")
    expect(about).to_contain_text(re.compile(r"\d\d\.\d% of 3,589 faces"))
    expect(about).to_contain_text("15 minutes")
