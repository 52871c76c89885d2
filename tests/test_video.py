"""Contracts of emotion/video.py, clips.py and tracking.py, on clips made here; a stand-in reads the faces as a rule."""

import csv
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from emotion.clips import Pace
from emotion.faces import FaceFinder
from emotion.labels import EMOTIONS
from emotion.recognizer import Face
from emotion.tracking import FaceTracker
from emotion.video import TIMELINE_COLUMNS, VideoError, analyse_video, caption, summarise

TESTS = Path(__file__).parent
ASTRONAUT = TESTS / "data" / "astronaut.jpg"

SMALL = (240, 180)
HAPPY = np.float32([0.02, 0.02, 0.02, 0.9, 0.02, 0.01, 0.01])
SAD = np.float32([0.05, 0.05, 0.1, 0.05, 0.7, 0.02, 0.03])


def face(x, y=50, size=80, probabilities=HAPPY):
    return Face((x, y, size, size), 0.9, np.zeros((468, 2), np.float32), np.zeros((48, 48), np.uint8), probabilities)


class Stub:
    """Stands in for EmotionRecognizer: whatever stands out from black is one face, happy on even answers, sad on odd ones."""

    record: dict = {}  # noqa: RUF012

    def __init__(self):
        self.answers = 0

    def predict(self, image):
        self.answers += 1
        rows, columns = (np.flatnonzero((image > 60).any(axis=(axis, 2))) for axis in (1, 0))
        if not len(rows):
            return []
        box = tuple(map(int, (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)))
        crop, landmarks = np.zeros((48, 48), np.uint8), np.zeros((468, 2), np.float32)
        return [Face(box, 0.9, landmarks, crop, SAD if self.answers % 2 else HAPPY)]


def astronaut(size, place, side, light=1.0):
    """The astronaut's portrait, `side` pixels wide, on a black picture of `size` (width, height) at `place` (x, y)."""
    portrait = cv2.cvtColor(cv2.imread(str(ASTRONAUT)), cv2.COLOR_BGR2RGB)
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    (x, y), small = place, cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
    picture[y : y + side, x : x + side] = small * light
    return picture


def walk(count, size=(480, 360), side=120):
    """`count` pictures in which the portrait crosses from left to right."""
    return [astronaut(size, (round(i * (size[0] - side) / count), size[1] - side), side) for i in range(count)]


QUICK = {"libx264": {"preset": "ultrafast", "bf": "0"}, "libvpx": {"deadline": "realtime", "cpu-used": "8"}}


def write_clip(path, pictures, fps=30, codec="libx264", pixels="yuv420p", rotation=0, times=None, options=None):
    """Writes pictures as a clip; `times`: seconds of each picture instead of an even pace."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=QUICK.get(codec, {}))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = pixels, Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture)
            frame.time_base, frame.pts = Fraction(1, 1000), round(1000 * (times[i] if times else i / fps))
            frame.duration = round(1000 / fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def silence(seconds):
    frame = av.AudioFrame.from_ndarray(np.zeros((1, round(44100 * seconds)), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 44100
    return frame


def analyse(path, out_dir, recognizer=None, **options):
    *_, last = analyse_video(path, recognizer or Stub(), out_dir, **options)
    return last.result


def read_rows(result):
    with result.csv_path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_clip(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
        return stream.codec_context.name, stream.codec_context.pix_fmt, container.duration / av.time_base, frames


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two seconds, 480x360, 30 frames a second: the portrait crosses."""
    return write_clip(tmp_path_factory.mktemp("clip") / "walk.mp4", walk(60))


# Tracking


def test_a_face_that_does_not_change_is_left_as_it_is():
    tracker = FaceTracker()
    for i in range(50):
        (tracked,) = tracker.update([face(100, probabilities=SAD)], i / 15)
        np.testing.assert_allclose(tracked.probabilities, SAD, atol=1e-6)


@pytest.mark.parametrize("times", [np.arange(0, 0.61, 0.1), np.arange(0, 0.601, 0.02), [0, 0.01, 0.3, 0.35, 0.6]], ids=len)
def test_smoothing_takes_its_time_at_any_frame_rate(times):
    tracker = FaceTracker(smoothing=0.4)
    tracker.update([face(100, probabilities=SAD)], 0.0)
    for seconds in times:
        (tracked,) = tracker.update([face(100, probabilities=HAPPY)], seconds)
    np.testing.assert_allclose(tracked.probabilities, HAPPY + np.exp(-0.6 / 0.4) * (SAD - HAPPY), atol=1e-5)
    assert tracked.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert tracked.probabilities.dtype == np.float32


def test_smoothing_can_be_switched_off():
    tracker = FaceTracker(smoothing=0)
    tracker.update([face(100, probabilities=SAD)], 0.0)
    (tracked,) = tracker.update([face(100, probabilities=HAPPY)], 0.01)
    np.testing.assert_array_equal(tracked.probabilities, HAPPY)


def test_every_face_comes_back_in_its_place_with_only_number_and_probabilities_changed():
    tracker, faces = FaceTracker(), [face(10), face(300), face(150)]
    tracker.update(faces[::-1], 0.0)
    tracked = tracker.update(faces, 0.1)
    assert [t.box for t in tracked] == [f.box for f in faces]
    assert all(t.landmarks is f.landmarks and t.crop is f.crop for t, f in zip(tracked, faces, strict=True))
    assert [t.id for t in tracked] == [3, 2, 1]


@pytest.mark.parametrize("hidden", [0, 5], ids=["both seen", "one hides the other"])
def test_two_faces_that_cross_keep_their_numbers(hidden):
    tracker = FaceTracker()
    for i in range(60):
        near, far = face(2 * i * 4, size=90), face(480 - 2 * i * 4, y=55, size=80)
        tracked = tracker.update([near] if abs(i - 30) < hidden else [near, far], i / 15)
        assert [t.id for t in tracked] == [1, 2][: len(tracked)], i


def test_a_face_survives_a_short_absence_and_gets_a_new_number_after_a_long_one():
    tracker = FaceTracker(max_gap=1.0)
    assert tracker.update([face(100)], 0.0)[0].id == 1
    assert tracker.update([], 0.5) == []
    assert tracker.update([face(105)], 0.9)[0].id == 1
    assert tracker.update([face(105)], 2.0)[0].id == 2


@pytest.mark.parametrize("place", [500, 200], ids=["went on", "stopped"])
def test_a_moving_face_that_was_hidden_is_known_again_where_it_was_going_and_where_it_was(place):
    tracker = FaceTracker()
    for i in range(16):
        tracker.update([face(round(-300 + 500 * i / 15))], i / 15)
    assert tracker.update([face(place)], 1.6)[0].id == 1


def test_faces_in_different_places_are_different_faces():
    tracker = FaceTracker()
    tracker.update([face(0)], 0.0)
    assert [t.id for t in tracker.update([face(400), face(0)], 0.1)] == [2, 1]
    assert tracker.update([face(200)], 0.2)[0].id == 3


def test_the_clock_must_not_go_back():
    tracker = FaceTracker()
    tracker.update([], 1.0)
    with pytest.raises(ValueError, match=r"never go back.*0\.9"):
        tracker.update([], 0.9)


@pytest.mark.parametrize("options", [{"smoothing": -1}, {"max_gap": -1}])
def test_negative_times_are_refused(options):
    with pytest.raises(ValueError, match="0 or more.*-1"):
        FaceTracker(**options)


# Pace


@pytest.mark.parametrize(("fps", "expected"), [(10, 10), (15, 15), (24, 15), (25, 15), (30, 15), (60, 15), (120, 15)])
def test_pace_takes_what_there_is_up_to_its_rate_also_from_rounded_times(fps, expected):
    pace = Pace(15)
    assert sum(pace.picks(round(i / fps, 3)) for i in range(10 * fps)) == pytest.approx(10 * expected, abs=1)


# The annotated clip


def test_the_annotated_clip_plays_in_browsers_and_is_as_long_and_large_as_the_original(clip, out):
    result = analyse(clip, out)
    codec, pixels, seconds, frames = read_clip(result.annotated_path)
    assert (codec, pixels) == ("h264", "yuv420p")
    assert seconds == pytest.approx(2, abs=0.05)
    assert frames[0][1].shape == (360, 480, 3)
    assert len(frames) == result.frames == 60
    written = result.annotated_path.read_bytes()
    assert written.index(b"moov") < written.index(b"mdat")  # the index comes first: it plays while it loads


def test_the_face_is_framed_where_it_is(clip, out):
    _, _, _, before = read_clip(clip)
    _, _, _, after = read_clip(analyse(clip, out).annotated_path)
    changed = [np.abs(a.astype(int) - b).max(axis=2) > 60 for (_, a), (_, b) in zip(before, after, strict=True)]
    left, right = np.flatnonzero(changed[0].any(axis=0)).mean(), np.flatnonzero(changed[-1].any(axis=0)).mean()
    assert left < 120
    assert right > 360


@pytest.mark.parametrize(
    ("size", "expected"), [((641, 481), (640, 480)), ((1921, 1081), (1280, 720)), ((101, 75), (500, 380)), ((6, 4), (480, 320))]
)
def test_every_size_becomes_one_that_h264_takes(size, expected, tmp_path, out):
    side = min(size) // 2
    path = write_clip(tmp_path / "odd.mp4", [astronaut(size, (0, 0), side)] * 3, pixels="yuv444p")
    _, _, _, frames = read_clip(analyse(path, out).annotated_path)
    assert frames[0][1].shape[1::-1] == expected


@pytest.mark.parametrize(("rotation", "corner"), [(90, (0, 0)), (-90, (1, 1)), (180, (0, 1))])
def test_a_clip_filmed_sideways_is_shown_and_read_upright(rotation, corner, tmp_path, out):
    filmed = astronaut((480, 360), (380, 0), 100)  # in the upper right corner of what the sensor saw
    result = analyse(write_clip(tmp_path / "phone.mp4", [filmed] * 4, rotation=rotation), out)
    _, _, _, frames = read_clip(result.annotated_path)
    width, height = (360, 480) if rotation % 180 else (480, 360)
    assert frames[0][1].shape == (height, width, 3)
    x, y = (int(read_rows(result)[0][key]) for key in "xy")
    assert (x > width / 2, y > height / 2) == tuple(map(bool, corner))


def test_uneven_frame_times_stay_as_they_are(tmp_path, out):
    times = [0, 0.04, 0.3, 0.5, 1.4, 1.5, 2.9]
    result = analyse(write_clip(tmp_path / "uneven.mp4", walk(7), times=times), out)
    _, _, seconds, frames = read_clip(result.annotated_path)
    assert [time for time, _ in frames] == pytest.approx(times, abs=0.002)
    assert seconds == pytest.approx(2.93, abs=0.05)
    assert [float(row["seconds"]) for row in read_rows(result)] == pytest.approx([0, 0.3, 0.5, 1.4, 1.5, 2.9], abs=0.002)


def test_fast_clips_are_thinned_to_30_frames_and_15_answers_a_second(tmp_path, out):
    recognizer = Stub()
    result = analyse(write_clip(tmp_path / "fast.mp4", walk(120, SMALL, 80), fps=120), out, recognizer)
    assert result.frames == pytest.approx(30, abs=1)
    assert recognizer.answers == result.analysed == pytest.approx(15, abs=1)
    assert result.seconds == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("name", "codec"), [("clip.webm", "libvpx"), ("clip.avi", "mpeg4"), ("clip.mkv", "libx264"), ("clip.mov", "libx264")]
)
def test_usual_formats_are_read(name, codec, tmp_path, out):
    result = analyse(write_clip(tmp_path / name, walk(10), fps=10, codec=codec), out)
    assert (result.frames, result.faces) == (10, 1)
    assert result.annotated_path.name == "clip_emotions.mp4"


def test_sound_is_dropped(tmp_path, out):
    with av.open(str(tmp_path / "talk.mp4"), "w") as container:
        video, audio = container.add_stream("libx264", rate=10), container.add_stream("aac", rate=44100)
        video.height, video.width = 360, 480
        for picture in walk(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(audio.encode(silence(0.1)))
        container.mux([*video.encode(), *audio.encode()])
    result = analyse(tmp_path / "talk.mp4", out)
    with av.open(str(result.annotated_path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    assert result.frames == 10


# The timeline


def test_the_timeline_keeps_its_contract(clip, out):
    result = analyse(clip, out)
    with result.csv_path.open(newline="") as file:
        header, *lines = list(csv.reader(file))
    assert tuple(header) == TIMELINE_COLUMNS
    assert header == ["seconds", "face", "x", "y", "width", "height", *EMOTIONS]
    numbers = np.array(lines, dtype=float)
    assert len(numbers) == result.analysed == pytest.approx(30, abs=1)
    assert (np.diff(numbers[:, 0]) > 0).all()
    assert numbers[-1, 0] < result.seconds
    assert (numbers[:, 1] == 1).all()
    assert result.faces == 1
    assert (numbers[:, 6:] >= 0).all()
    np.testing.assert_allclose(numbers[:, 6:].sum(axis=1), 1, atol=1e-4)


def test_the_timeline_holds_what_the_model_said_when_nothing_is_smoothed(clip, out):
    rows = read_rows(analyse(clip, out, smoothing=0))
    happy = [float(row["happy"]) for row in rows]
    np.testing.assert_allclose(happy[:4], [SAD[3], HAPPY[3], SAD[3], HAPPY[3]], atol=1e-5)


def test_boxes_are_in_pixels_of_the_clip_however_large_it_is(tmp_path, out):
    picture = astronaut((1920, 1080), (900, 300), 600)
    path = write_clip(tmp_path / "large.mp4", [picture] * 2)
    result = analyse(path, out)
    row = read_rows(result)[0]
    assert [int(row[key]) for key in ("x", "y", "width", "height")] == pytest.approx([900, 300, 600, 600], abs=8)
    _, _, _, frames = read_clip(result.annotated_path)
    columns = np.flatnonzero((frames[0][1] > 60).any(axis=(0, 2)))
    assert [columns[0], columns[-1]] == pytest.approx([600, 1000], abs=8)  # drawn there too, in a clip of 1280x720


def test_a_face_that_fades_away_leaves_the_timeline(tmp_path, out):
    pictures = [astronaut((480, 360), (100, 100), 150, light) for light in np.linspace(1, 0, 30)]
    rows = read_rows(analyse(write_clip(tmp_path / "fade.mp4", pictures, fps=15), out))
    assert 0 < float(rows[-1]["seconds"]) < 1.9


def test_a_real_face_is_found_and_keeps_its_number_while_it_moves(tmp_path, out):
    class WithFinder(Stub):
        finder = FaceFinder()

        def predict(self, image):
            return [Face(f.box, f.score, f.landmarks, f.crop, HAPPY) for f in self.finder.find(image)]

    path = write_clip(tmp_path / "real.mp4", walk(24, size=(640, 480), side=400), fps=12)
    result = analyse(path, out, WithFinder())
    rows = read_rows(result)
    assert len(rows) == 24
    assert result.faces == 1
    assert int(rows[-1]["x"]) - int(rows[0]["x"]) > 150


def test_a_summary_gives_the_share_of_each_emotion_for_each_face():
    rows = [
        {"face": number, **dict(zip(EMOTIONS, map(str, probabilities), strict=True))}
        for number, probabilities in [("2", SAD), ("1", HAPPY), ("1", HAPPY), ("1", HAPPY), ("1", SAD)]
    ]
    summary = summarise(rows)
    assert list(summary) == [1, 2]
    assert summary[1] == {**dict.fromkeys(EMOTIONS, 0.0), "happy": 0.75, "sad": 0.25}
    assert summary[2]["sad"] == 1
    assert summarise([]) == {}


def test_a_caption_names_no_emotion_when_the_model_is_not_sure():
    (sure,) = FaceTracker().update([face(0)], 0)
    (unsure,) = FaceTracker().update([face(0, probabilities=np.full(7, 1 / 7, np.float32))], 0)
    assert caption(sure).captions == ("1 happy 90%", "1 happy", "1")
    assert caption(sure).emotion == "happy"
    assert caption(unsure).captions[0] == "1 not sure"
    assert caption(unsure).emotion == "not sure"
    assert caption(sure, not_sure_below=0.95).emotion == "not sure"


# Progress, cancelling, memory


@pytest.mark.parametrize("name", ["clip.mp4", "live.mkv"], ids=["length known", "length unknown"])
def test_progress_rises_from_nothing_to_all_and_ends_with_the_result(name, tmp_path, out):
    path = write_clip(tmp_path / name, walk(60, SMALL, 80), options={"live": "1"} if name == "live.mkv" else {})
    steps = list(analyse_video(path, Stub(), out))
    shares = [step.share for step in steps]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert len(set(shares)) > 20
    assert [step.result is None for step in steps] == [True] * (len(steps) - 1) + [False]


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_cancelling_leaves_nothing_behind(steps, clip, out):
    work = analyse_video(clip, Stub(), out)
    for _ in range(steps):
        next(work)
    work.close()
    assert list(out.iterdir()) == []


def test_a_failure_half_way_leaves_nothing_behind_and_keeps_an_older_result(clip, out):
    older = analyse(clip, out)
    written = older.csv_path.read_bytes()

    class Fails(Stub):
        def predict(self, image):
            if self.answers == 10:
                raise RuntimeError("the tenth answer fails")
            return super().predict(image)

    with pytest.raises(RuntimeError, match="tenth"):
        analyse(clip, out, Fails())
    assert set(out.iterdir()) == {older.csv_path, older.annotated_path}
    assert older.csv_path.read_bytes() == written


MEASURE = """
import sys
from pathlib import Path
sys.path[:0] = [{project!r}, {tests!r}]
from test_video import Stub, analyse

class Hoarder(Stub):
    kept = []
    def predict(self, image):
        self.kept.append(image.copy())
        return super().predict(image)

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

recognizer = {recognizer}()
analyse("short.mp4", Path("out"), recognizer)
short = peak()
analyse("long.mp4", Path("out"), recognizer)
print((peak() - short) / 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from Linux's /proc")
def test_memory_does_not_grow_with_the_clip(tmp_path, out):
    pictures = walk(50)
    write_clip(tmp_path / "short.mp4", pictures, fps=15)
    write_clip(tmp_path / "long.mp4", pictures * 5, fps=15)

    def growth(recognizer):
        code = MEASURE.format(project=str(TESTS.parent), tests=str(TESTS), recognizer=recognizer)
        # One arena: with several, the allocator's own reserves swing by more than what is measured here.
        environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
        result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return float(result.stdout)

    frames = 200 * 480 * 360 * 3 / 2**20  # MB of the pictures that the long clip has more than the short one: 99
    assert growth("Stub") < 0.4 * frames
    assert growth("Hoarder") > 0.8 * frames  # the measure sees it when pictures are kept


# Refusals


def sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        container.mux(stream.encode(silence(1)))
        container.mux(stream.encode())


def cut_off(path):
    write_clip(path, walk(60, SMALL, 80), options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def cut_off_quietly(path):
    write_clip(path, walk(60, SMALL, 80))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def playlist(path):
    write_clip(path.with_name("secret.mp4"), walk(3))
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n")


REFUSED = {
    "missing.mp4": (lambda path: None, "must be an existing file"),
    "folder.mp4": (lambda path: path.mkdir(), "must be an existing file"),
    "empty.mp4": (lambda path: path.touch(), "export or download it again.*0 bytes"),
    "noise.mp4": (lambda path: path.write_bytes(bytes(range(256)) * 40), "export or download it again"),
    "text.txt": (lambda path: path.write_text("no clip\n" * 50), "whole video in a usual format"),
    "photo.jpg": (lambda path: path.write_bytes(ASTRONAUT.read_bytes()), "whole video in a usual format"),
    "photo.png": (lambda path: Image.new("RGB", (90, 90)).save(path), "whole video in a usual format"),
    "list.m3u8": (playlist, "whole video in a usual format"),
    "sound.mp4": (sound, "must hold moving pictures"),
    "long.mp4": (lambda path: write_clip(path, walk(10), fps=1), "at most 0:05 minutes long: cut it first.*0:10"),
    "large.mp4": (lambda path: write_clip(path, [np.zeros((2560, 4096, 3), np.uint8)]), "export it smaller.*4096x2560"),
}
FAILS_LATER = {
    "cut.mp4": (cut_off, "export or download it again.*after .* seconds"),
    "cut.mkv": (cut_off_quietly, "export or download it again.*ends after .* of 2.0 seconds"),
    "live.mkv": (
        lambda path: write_clip(path, walk(10), fps=1, options={"live": "1"}),
        "at most 0:05 minutes.*more than",
    ),
}


@pytest.mark.parametrize("name", REFUSED | FAILS_LATER)
def test_a_file_that_is_no_whole_clip_is_refused_in_a_sentence_that_says_what_to_do(name, tmp_path, out):
    make, sentence = (REFUSED | FAILS_LATER)[name]
    make(tmp_path / name)
    recognizer = Stub()
    with pytest.raises(VideoError, match=sentence) as caught:
        analyse(tmp_path / name, out, recognizer, max_seconds=5)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(out.iterdir()) == []
    assert name in FAILS_LATER or recognizer.answers == 0  # refused before any work where the header tells


def test_nonsense_settings_are_refused(clip, out):
    with pytest.raises(ValueError, match="rate must be.*0"):
        analyse(clip, out, sample_fps=0)
    assert list(out.iterdir()) == []
