"""The Video and Many photos tabs as a visitor meets them; set-up and screenshots as in test_app_browser.py."""

# ruff: noqa: F811 - fixtures that come by import and are asked for by name

import re
import time
from pathlib import Path

import pytest
from page_support import ASTRONAUT, HOPPER, film, write_refused
from PIL import Image
from test_app_browser import CHROMIUM, DESKTOP, PHONE, Axe, chromium, expect, server, visit  # noqa: F401

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: install it, or name its executable in $CHROMIUM"),
]

DARK = {**DESKTOP, "color_scheme": "dark"}
WITH_CAMERA = {**DESKTOP, "permissions": ["camera"]}

PLAYS = """() => {
    const video = document.querySelector("#clip-annotated video");
    return video && video.readyState >= 3 && video.duration > 0 && video.currentTime > 0;
}"""


def views(picture: str):
    """The three looks at a tab that are photographed: `picture`, the same in the dark, the same on a phone."""
    looks = [(DESKTOP, ".png"), (DARK, "_dark.png"), (PHONE, "_phone.png")]
    cases = [(look, picture + ending) for look, ending in looks]
    return pytest.mark.parametrize("visit, picture", cases, indirect=["visit"], ids=["desktop", "dark", "phone"])


def open_tab(visit, name: str) -> None:
    """Opens a tab; those that do not fit on a phone are in a menu."""
    tab = visit.page.get_by_role("tab", name=name, exact=True).locator("visible=true")
    menu = visit.page.locator(".overflow-menu > button")
    expect(tab.or_(menu).first).to_be_visible()
    visit.page.wait_for_timeout(500)  # the tabs are laid out twice
    if tab.count():
        tab.first.click()
    else:
        menu.click()
        visit.page.locator(".overflow-dropdown").get_by_text(name, exact=True).click()


def fits(visit) -> bool:
    return visit.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert condition()


def add_clip(visit, clip: Path) -> None:
    open_tab(visit, "Video")
    visit.page.locator("#clip input[type=file]").set_input_files(clip)


def add_photos(visit, photos: list[Path]) -> None:
    open_tab(visit, "Many photos")
    visit.page.locator("#files input[type=file]").set_input_files(photos)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Six seconds in which a smile fades into another person's earnest look."""
    return film(tmp_path_factory.mktemp("clips") / "two people.mp4", 6, (ASTRONAUT, HOPPER))


@pytest.fixture(scope="module")
def pile(tmp_path_factory) -> list[Path]:
    """Nine files: seven photos with faces, one without, one that is broken."""
    folder = tmp_path_factory.mktemp("pile")
    smiling, earnest = (Image.open(path).convert("RGB") for path in (ASTRONAUT, HOPPER))
    both = Image.new("RGB", (1024, 512))
    both.paste(smiling, (0, 0))
    both.paste(earnest, (512, 0))
    for i in range(3):
        smiling.crop((0, 0, 512 - 40 * i, 512 - 40 * i)).save(folder / f"astronaut {i + 1}.jpg")
        earnest.crop((30 * i, 0, 512, 600 - 30 * i)).save(folder / f"hopper {i + 1}.jpg")
    both.save(folder / "pair.jpg")
    Image.linear_gradient("L").save(folder / "sky.png")
    write_refused(folder, "cut.jpg")
    return sorted(folder.iterdir())


@views("screenshot_video")
def test_a_clip_is_followed_and_plays_with_its_curves(visit, picture, clip):
    add_clip(visit, clip)
    answer = visit.page.locator("#clip-answer")
    expect(answer.get_by_role("progressbar")).to_be_visible(timeout=30_000)
    expect(answer.locator("details[open] .curves .track")).to_have_count(7, timeout=60_000)
    expect(answer).to_contain_text("happy")
    visit.page.wait_for_function(PLAYS)
    assert visit.page.locator("#clip-annotated video").evaluate("video => video.duration") == pytest.approx(6, abs=0.2)
    expect(visit.page.get_by_role("button", name="Cancel")).to_be_hidden()
    assert fits(visit), "must not scroll sideways"
    visit.photograph(picture)


def test_a_click_on_a_curve_shows_that_moment_and_a_line_marks_it(visit, clip):
    add_clip(visit, clip)
    track = visit.page.locator("#clip-answer details[open] .track").first
    track.wait_for(timeout=60_000)
    visit.page.wait_for_function(PLAYS)
    video = visit.page.locator("#clip-annotated video")
    video.evaluate("video => video.pause()")
    track.click(position={"x": track.bounding_box()["width"] * 0.75, "y": 10})
    visit.page.wait_for_function("() => Math.abs(document.querySelector('#clip-annotated video').currentTime - 4.5) < 0.1")
    expect(visit.page.locator("#clip-answer details[open] .curves")).to_have_attribute("style", re.compile(r"--at: ?7[45]"))


def test_cancelling_a_clip_stops_the_work_leaves_no_file_and_it_can_start_again(visit, tmp_path, server_files):
    add_clip(visit, film(tmp_path / "long.mp4", 40))
    answer = visit.page.locator("#clip-answer")
    expect(answer).to_contain_text(re.compile(r"[1-9]\d?% done"), timeout=30_000)
    assert server_files(".emotions-*")
    visit.page.get_by_role("button", name="Cancel").click()
    expect(answer.locator("h2")).to_have_text("Stopped", timeout=10_000)
    assert not server_files(".emotions-*") and not server_files("long-emotions.*")
    expect(visit.page.get_by_role("button", name="Cancel")).to_be_hidden()
    visit.page.get_by_role("button", name="Start again").click()
    expect(answer).to_contain_text("% done", timeout=30_000)
    visit.page.locator("#clip").get_by_label("Clear").click()  # removing the clip cancels, too
    expect(answer.locator("h2")).to_have_text("The answer appears here", timeout=10_000)
    wait_until(lambda: not server_files(".emotions-*"))


def test_leaving_the_page_stops_the_work(visit, tmp_path, server_files):
    add_clip(visit, film(tmp_path / "long.mp4", 40))
    expect(visit.page.locator("#clip-answer")).to_contain_text(re.compile(r"[1-9]\d?% done"), timeout=30_000)
    visit.page.close()
    wait_until(lambda: not server_files(".emotions-*"))


def test_a_file_that_is_no_clip_is_refused_with_a_sentence(visit, tmp_path):
    (tmp_path / "text.mp4").write_text("not a clip")
    add_clip(visit, tmp_path / "text.mp4")
    expect(visit.page.locator("#clip-answer")).to_contain_text("whole video in a usual format", timeout=30_000)


@pytest.mark.parametrize("visit", [WITH_CAMERA], indirect=True, ids=["camera"])
def test_a_clip_recorded_with_the_camera_is_followed(visit):
    open_tab(visit, "Video")
    visit.page.locator("#clip").get_by_label("Capture from camera").click()
    visit.page.locator("#clip").get_by_text("Click to Access Webcam").click()
    visit.page.wait_for_function("() => document.querySelector('#clip video')?.videoWidth > 0")
    visit.page.locator("#clip").get_by_label("start recording").click()
    visit.page.wait_for_timeout(2000)
    visit.page.locator("#clip").get_by_text("Stop", exact=True).click()
    expect(visit.page.locator("#clip-answer .curves")).not_to_have_count(0, timeout=60_000)


@views("screenshot_batch")
def test_many_photos_become_a_table_and_a_broken_one_a_row_with_its_reason(visit, picture, pile):
    add_photos(visit, pile)
    answer, table = visit.page.locator("#batch-answer"), visit.page.locator("#batch-table table")
    expect(answer.locator("h2")).to_have_text("8 faces in 8 photos", timeout=60_000)
    expect(table.locator("tbody tr")).to_have_count(10)
    expect(table.locator("tr", has_text="cut.jpg")).to_contain_text("save it again as JPEG or PNG")
    expect(table.locator("tr", has_text="sky.png")).to_contain_text("no face found")
    expect(table.locator("tr", has_text="astronaut 1.jpg")).to_contain_text("happy")
    expect(visit.page.locator("#batch-gallery img")).to_have_count(7)
    assert fits(visit), "must not scroll sideways"
    visit.photograph(picture)
    with visit.page.expect_download() as download:
        visit.page.get_by_text("Download the numbers (CSV)").click()
    assert download.value.suggested_filename == "emotions.csv"


@pytest.mark.parametrize("visit", [DESKTOP, DARK], indirect=True, ids=["light", "dark"])
def test_no_answer_has_a_serious_accessibility_fault(visit, clip, pile):
    add_clip(visit, clip)
    expect(visit.page.locator("#clip-answer").get_by_role("progressbar")).to_be_visible(timeout=30_000)
    faults = {"working": serious_faults(visit)}
    expect(visit.page.locator("#clip-answer .curves")).not_to_have_count(0, timeout=60_000)
    visit.page.wait_for_function(PLAYS)
    faults["clip"] = serious_faults(visit)
    add_photos(visit, pile)
    expect(visit.page.locator("#batch-gallery img")).to_have_count(7, timeout=60_000)
    visit.page.wait_for_timeout(500)  # until nothing fades any more
    faults["photos"] = serious_faults(visit)
    assert not any(faults.values()), faults


def serious_faults(visit) -> list:
    found = Axe().run(visit.page).response["violations"]
    return [(v["id"], [node["html"] for node in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")]


def test_a_whole_folder_can_be_added(visit, pile):
    open_tab(visit, "Many photos")
    with visit.page.expect_file_chooser() as chooser:
        visit.page.get_by_role("button", name="Add a whole folder").click()
    chooser.value.set_files(pile[0].parent)
    expect(visit.page.locator("#batch-answer h2")).to_have_text("8 faces in 8 photos", timeout=60_000)


def test_cancelling_many_photos_keeps_the_rows_so_far_and_leaves_no_file(visit, pile, tmp_path, server_files):
    large = Image.open(pile[0] if pile[0].suffix != ".png" else pile[1]).convert("RGB").resize((4000, 4000))
    copies = []
    for i in range(20):
        copies.append(tmp_path / f"large {i}.jpg")
        large.save(copies[-1], quality=30)
    add_photos(visit, copies)
    expect(visit.page.locator("#batch-answer")).to_contain_text("% done", timeout=60_000)
    visit.page.get_by_role("button", name="Cancel").click()
    expect(visit.page.locator("#batch-answer h2")).to_have_text("Stopped", timeout=20_000)
    assert 0 < visit.page.locator("#batch-table tbody tr").count() < len(copies)
    assert not server_files("large-*-emotions.jpg")
    expect(visit.page.get_by_role("button", name="Add a whole folder")).to_be_enabled()


@pytest.fixture
def server_files(server, tmp_path_factory):
    """Lists what lies in the page's temporary folders by a pattern."""
    base = tmp_path_factory.getbasetemp()
    return lambda pattern: [path for folder in base.glob("tmp*/facial-emotion-*") for path in folder.rglob(pattern)]
