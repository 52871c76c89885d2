"""Contracts of emotion/faces.py and what it stands on, emotion/images.py and emotion/blazeface.py."""

import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from emotion.faces import (
    REFERENCE_POINTS,
    FaceFinder,
    ImageError,
    align,
    alignment,
    eyes_and_mouth,
    read_image,
)
from emotion.images import area_resize

DATA = Path(__file__).parent / "data"
PROJECT = Path(__file__).parent.parent
FACES = {"astronaut": (177, 69, 96, 108), "grace_hopper": (168, 132, 188, 202)}  # left, top, width, height, about


@pytest.fixture(scope="module")
def finder():
    return FaceFinder()


@pytest.fixture(scope="module")
def photos():
    return {name: read_image(DATA / f"{name}.jpg") for name in FACES}


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def overlap(a, b):
    """Intersection over union of two boxes (left, top, width, height)."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


# --- resizing and reading pictures


@pytest.mark.parametrize("size", [(640, 480), (641, 479), (4000, 30), (97, 64)])
def test_area_resize_averages_areas_and_shifts_nothing(size):
    y, x = np.mgrid[: size[1], : size[0]]
    ramp = np.stack([255 * (x + 0.5) / size[0], 255 * (y + 0.5) / size[1], 255 * ((x + y) % 2)], axis=-1)
    width, height = size[0] // 5, size[1] // 5
    small = area_resize(np.rint(ramp).astype(np.uint8), width, height)
    assert small.shape == (height, width, 3)
    y, x = np.mgrid[:height, :width]
    assert np.abs(small[..., 0] - 255 * (x + 0.5) / width).max() < 2.5
    assert np.abs(small[..., 1] - 255 * (y + 0.5) / height).max() < 2.5
    assert np.abs(small[..., 2] - 127.5).max() < 20  # a chequerboard becomes grey, not stripes


@pytest.fixture(scope="module")
def small():
    """An RGB picture as PIL image, 64 wide and 48 high, whose colours are smooth enough for JPEG."""
    y, x = np.mgrid[:48, :64]
    return Image.fromarray(np.stack([x * 4, y * 5, 255 - x * 2 - y], axis=-1).astype(np.uint8))


def test_every_kind_of_source_gives_the_same_pixels(small, tmp_path):
    path = tmp_path / "photo.png"
    small.save(path)
    content = path.read_bytes()
    sources = [path, str(path), content, bytearray(content), io.BytesIO(content), small, np.array(small)]
    for source in sources:
        pixels = read_image(source)
        assert pixels.dtype == np.uint8 and pixels.shape == (48, 64, 3)
        assert np.array_equal(pixels, np.array(small))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("1", "PNG"), ("CMYK", "JPEG"),
     ("CMYK", "TIFF"), ("RGB", "WEBP"), ("RGB", "BMP"), ("YCbCr", "JPEG"), ("I", "TIFF"), ("F", "TIFF")],
)  # fmt: skip
def test_every_mode_becomes_rgb(small, mode, kind):
    pixels = read_image(encoded(small.convert(mode), kind))
    expected = np.array(small.convert(mode).convert("RGB") if mode != "LA" else small.convert("L").convert("RGB"))
    assert pixels.dtype == np.uint8 and pixels.shape == (48, 64, 3)
    assert np.abs(pixels.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_shades(kind):
    deep = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    for source in (deep, deep.astype(">u2"), encoded(Image.fromarray(deep), kind)):
        assert np.array_equal(read_image(source), np.stack([deep // 256] * 3, axis=-1))


def test_arrays_of_every_type_and_shape_become_rgb(small):
    grey = np.array(small.convert("L"))
    expected = np.stack([grey] * 3, axis=-1)
    for array in (grey, grey[..., np.newaxis], grey.astype(np.int64), grey.astype(np.float64), grey / 255.0, expected):
        assert np.array_equal(read_image(array), expected)
    assert np.array_equal(read_image(grey > 128), (expected > 128) * np.uint8(255))


def test_transparent_parts_become_white():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255
    for source in (pixels, encoded(Image.fromarray(pixels), "PNG")):
        assert np.array_equal(read_image(source)[:, 0, 0], [0, 0, 255, 255])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(small, orientation):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that bring the picture into that state
    stored = small.transpose(undo[orientation]) if orientation > 1 else small
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, "JPEG", exif=exif, quality=95)
    pixels = read_image(content)
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels.astype(int) - np.array(small)).mean() < 6
    assert np.array_equal(read_image(Image.open(io.BytesIO(content))), pixels)


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (body, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(7_100, 7_100), (10_000, 10_000), (60_000, 60_000), (40_000, 100)])
def test_a_picture_too_large_to_decode_is_refused_with_the_limit(size):
    with pytest.raises(ImageError, match="at most 50 megapixels"):
        read_image(png_header(*size))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_file_is_refused(small, kind):
    content = encoded(small, kind)
    with pytest.raises(ImageError, match="must be a whole picture"):
        read_image(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "save it again as JPEG or PNG"),
        (b"%PDF-1.7 no picture", "save it again as JPEG or PNG"),
        ("nowhere/photo.jpg", r"existing file. Received: nowhere/photo\.jpg"),
        (DATA, "existing file"),
        (None, "Received: NoneType"),
        (np.zeros((4, 4, 2), np.uint8), r"Received: \(4, 4, 2\)"),
        (np.zeros((0, 5, 3), np.uint8), "at least one pixel"),
        (np.full((4, 4), np.nan), "finite numbers"),
        (np.full((4, 4), -1), r"Received: -1\.\.-1"),
        (np.full((4, 4), "a"), "finite numbers"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(source, message):
    with pytest.raises(ImageError, match=message):
        read_image(source)


# --- finding faces


@pytest.mark.parametrize("name", FACES)
def test_a_face_is_found_where_it_is(finder, photos, name):
    (face,) = finder.find(photos[name])
    assert overlap(face.box, FACES[name]) > 0.7
    assert all(type(number) is int for number in face.box)
    assert 0.5 <= face.score <= 1
    assert face.landmarks.shape == (468, 2) and face.landmarks.dtype == np.float32
    assert face.crop.shape == (48, 48) and face.crop.dtype == np.uint8
    left, top, width, height = face.box
    assert (face.landmarks >= [left, top]).all() and (face.landmarks <= [left + width, top + height]).all()


@pytest.mark.parametrize("side", [40, 120, 1080])
@pytest.mark.parametrize("lost", [0, 0.12])
@pytest.mark.parametrize("name", FACES)
def test_a_face_that_fills_the_frame_is_found_with_confidence(finder, photos, name, lost, side):
    left, top, width, height = FACES[name]  # forehead to chin, no margin at all; or not even that
    x, y = round(lost * width), round(lost * height)
    crop = photos[name][top + y : top + height - y, left + x : left + width - x]
    scale = side / crop.shape[0]
    (face,) = finder.find(cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    assert face.score > 0.65
    assert face.box[2] > 0.7 * scale * crop.shape[1] and face.box[3] > 0.7 * scale * crop.shape[0]


def scene(rng):
    """A drawn room, uint8 (768, 1366, 3): shaded wall and floor, noise, picture frames, plants."""
    y, x = np.mgrid[:768, :1366]
    room = np.stack([150 + x / 40, 150 - y / 12, 130 + y / 20], axis=-1)
    room[600:] -= 50
    room = np.clip(room + rng.normal(0, 5, room.shape), 0, 255).astype(np.uint8)
    for _ in range(25):
        corner = rng.integers([0, 0], [1300, 700])
        other, colour = corner + rng.integers(20, 160, 2), tuple(map(int, rng.integers(0, 256, 3)))
        cv2.rectangle(room, corner, other, colour, int(rng.choice([-1, 3, 8])))
        cv2.ellipse(room, other, (30, 10), float(rng.integers(180)), 0, 360, colour, -1)
    return room


def paste(room, photo, box, width, left, top):
    """Puts a head on the picture, its face `width` pixels wide; returns the face's box."""
    scale = width / box[2]
    margin = (0.35 * box[2], 0.45 * box[2])
    x, y = int(box[0] - margin[0]), int(box[1] - margin[1])
    head = photo[max(y, 0) : int(box[1] + box[3] + margin[0]), x : int(box[0] + box[2] + margin[0])]
    head = cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    room[top : top + head.shape[0], left : left + head.shape[1]] = head
    return left + int((box[0] - x) * scale), top + int((box[1] - max(y, 0)) * scale), width, int(box[3] * scale)


@pytest.mark.parametrize("seed", range(3))
def test_faces_from_40_to_200_pixels_are_found_in_a_group_photo(finder, photos, seed):
    rng = np.random.default_rng(seed)
    room, expected, left = scene(rng), [], 10
    for number, width in enumerate(rng.permutation([40, 42, 46, 50, 60, 75, 100, 140, 200])):
        name = ("astronaut", "grace_hopper")[number % 2]
        top = int(rng.integers(10, 740 - 2.2 * width))
        expected.append(paste(room, photos[name], FACES[name], int(width), left, top))
        left += int(1.8 * width)
    faces = finder.find(room)
    assert len(faces) == len(expected)
    for face, box in zip(faces, expected, strict=True):  # both run from left to right
        assert overlap(face.box, box) > 0.6


@pytest.mark.parametrize("angle", [-30, -15, 15, 30])
def test_a_turned_head_is_found_and_half_of_its_tilt_turned_back(finder, photos, angle):
    for name, (left, top, width, height) in FACES.items():
        photo = photos[name]
        turn = cv2.getRotationMatrix2D((left + width / 2, top + height / 2), angle, 1)
        turned = cv2.warpAffine(photo, turn, photo.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        (before,), (face,) = finder.find(photo), finder.find(turned)
        moved = before.landmarks @ turn[:, :2].T + turn[:, 2]
        assert np.linalg.norm(face.landmarks - moved, axis=1).mean() < 0.04 * width
        half = cv2.getRotationMatrix2D((23.5, 23.5), angle / 2, 1)
        expected = cv2.warpAffine(before.crop, half, (48, 48), flags=cv2.INTER_CUBIC)
        assert np.abs(face.crop.astype(int) - expected)[8:40, 8:40].mean() < 12


def drawn_things():
    """Pictures without a face: name -> uint8 (h, w, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    things = {
        "black": np.zeros((480, 640, 3)),
        "white": np.full((480, 640, 3), 255),
        "noise": rng.integers(0, 256, (480, 640, 3)),
        "soft noise": cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3)).astype(np.uint8), (0, 0), 12).astype(float) * 8 % 256,
        "gradient": np.stack([x * 255 / 640, y * 255 / 480, 128 + 0 * x], axis=-1),
        "disc": np.stack([255 - np.hypot(x - 320, y - 240) / 2] * 3, axis=-1),
        "stripes": np.stack([(x // 16 % 2) * 255] * 3, axis=-1),
        "chessboard": np.stack([((x // 60 + y // 60) % 2) * 255] * 3, axis=-1),
        "room": scene(rng),
    }
    things = {name: np.clip(picture, 0, 255).astype(np.uint8) for name, picture in things.items()}
    house = np.full((480, 640, 3), (120, 170, 230), np.uint8)
    cv2.rectangle(house, (0, 380), (640, 480), (60, 140, 60), -1)
    cv2.rectangle(house, (200, 200), (440, 400), (180, 120, 90), -1)
    cv2.fillPoly(house, [np.array([[180, 200], [460, 200], [320, 90]])], (150, 50, 40))
    cv2.rectangle(house, (290, 310), (350, 400), (90, 60, 40), -1)
    text = np.full((480, 640, 3), 250, np.uint8)
    for line in range(12):
        cv2.putText(text, "The quick brown fox jumps", (20, 50 + 36 * line), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (20, 20, 20), 2)
    clock = np.full((480, 640, 3), 200, np.uint8)
    cv2.circle(clock, (320, 240), 180, (255, 255, 255), -1)
    cv2.circle(clock, (320, 240), 180, (30, 30, 30), 6)
    cv2.line(clock, (320, 240), (320, 100), (30, 30, 30), 6)
    cv2.line(clock, (320, 240), (420, 290), (30, 30, 30), 8)
    return things | {"house": house, "text": text, "clock": clock}


@pytest.mark.parametrize("size", [(48, 48), (160, 120), (640, 480), (1366, 1024)])
@pytest.mark.parametrize("name", drawn_things())
def test_a_picture_without_a_face_gives_no_face(finder, name, size):
    picture = drawn_things()[name]
    assert finder.find(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 2), (7, 5)])
def test_a_picture_of_odd_shape_gives_no_face(finder, shape):
    assert finder.find(np.full((*shape, 3), 90, np.uint8)) == []


def test_an_answer_does_not_depend_on_earlier_pictures(finder, photos):
    first = finder.find(photos["astronaut"])
    finder.find(photos["grace_hopper"])
    finder.find(drawn_things()["noise"])
    (before,), (after,) = first, finder.find(photos["astronaut"])
    assert before.box == after.box and before.score == after.score
    assert np.array_equal(before.landmarks, after.landmarks) and np.array_equal(before.crop, after.crop)


def test_many_threads_get_the_answers_of_one(finder, photos):
    pictures = [photos["astronaut"], photos["grace_hopper"], drawn_things()["noise"]] * 5
    alone = [finder.find(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(finder.find, pictures))
    for one, other in zip(alone, together, strict=True):
        assert len(one) == len(other)
        assert all(np.array_equal(a.landmarks, b.landmarks) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("scale", [0.25, 0.5, 2, 6])
def test_landmarks_are_in_pixels_of_the_picture_at_any_size(finder, photos, scale):
    photo = photos["astronaut"]
    scaled = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    (one,), (other,) = finder.find(photo), finder.find(scaled)
    assert np.linalg.norm(one.landmarks * scale - other.landmarks, axis=1).mean() < 0.03 * FACES["astronaut"][2] * scale


def test_landmarks_move_with_the_face(finder, photos):
    photo = photos["grace_hopper"]
    (one,), (other,) = finder.find(photo), finder.find(cv2.copyMakeBorder(photo, 40, 10, 90, 0, cv2.BORDER_REPLICATE))
    assert np.linalg.norm(one.landmarks + np.array([90, 40]) - other.landmarks, axis=1).mean() < 0.03 * FACES["grace_hopper"][2]


def test_box_is_clipped_to_the_picture(finder, photos):
    left, top, _, height = FACES["grace_hopper"]
    cut = photos["grace_hopper"][top + 30 : top + height, left + 20 :]
    (face,) = finder.find(cut)
    assert face.box[0] >= 0 and face.box[1] >= 0
    assert face.box[0] + face.box[2] <= cut.shape[1] and face.box[1] + face.box[3] <= cut.shape[0]


@pytest.mark.parametrize("wrong", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8)])
def test_the_finder_refuses_what_is_no_rgb_picture(finder, wrong):
    with pytest.raises(ValueError, match=r"rgb must be a uint8 array of shape \(h, w, 3\)"):
        finder.find(wrong)


# --- aligning


@pytest.mark.parametrize("name", FACES)
def test_eyes_and_mouth_lie_where_those_of_fer2013_lie(finder, photos, name):
    (face,) = finder.find(photos[name])
    (again,) = finder.find(read_image(face.crop))
    assert np.abs(eyes_and_mouth(again.landmarks) - REFERENCE_POINTS).max() < 2


@pytest.mark.parametrize(("tilt", "kept"), [(0, 0), (8, 4), (-20, -10), (30, 15), (50, 15), (-90, -15), (170, 15)])
def test_an_aligned_face_keeps_half_of_its_tilt_and_no_more_than_15_degrees(tilt, kept):
    """Degrees with the clock, as the picture shows them; middle and size of the face do not depend on them."""
    points = (np.array(REFERENCE_POINTS) - 24) @ np.array(turned_by(tilt)).T * 3 + (150, 90)
    landmarks = np.zeros((468, 2))
    for pair, point in zip(((33, 133), (362, 263), (61, 291)), points, strict=True):
        landmarks[list(pair)] = point
    matrix = alignment(landmarks)
    aligned = points @ matrix[:, :2].T + matrix[:, 2]
    middle = np.mean(REFERENCE_POINTS, axis=0)
    expected = (np.array(REFERENCE_POINTS) - middle) @ np.array(turned_by(kept)).T + middle
    np.testing.assert_allclose(aligned, expected, atol=1e-6)


def turned_by(degrees):
    angle = np.radians(degrees)
    return [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]


def test_align_takes_grey_and_colour_alike(finder, photos):
    photo = photos["astronaut"]
    (face,) = finder.find(photo)
    assert np.array_equal(align(photo, face.landmarks), face.crop)
    grey = align(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), face.landmarks)
    assert np.abs(grey.astype(int) - face.crop).max() <= 2


def test_align_keeps_pixels_that_already_lie_right():
    image = np.random.default_rng(0).integers(0, 256, (48, 48)).astype(np.uint8)
    landmarks = np.zeros((468, 2), np.float32)
    for pair, point in zip(((33, 133), (362, 263), (61, 291)), REFERENCE_POINTS, strict=True):
        landmarks[list(pair)] = point
    assert np.array_equal(align(image, landmarks), image)


def test_align_of_an_enlarged_face_is_the_face_itself():
    image = np.random.default_rng(0).integers(0, 256, (48, 48)).astype(np.uint8)
    image = cv2.normalize(cv2.GaussianBlur(image, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    landmarks = np.zeros((468, 2), np.float32)
    for pair, point in zip(((33, 133), (362, 263), (61, 291)), REFERENCE_POINTS, strict=True):
        landmarks[list(pair)] = np.float32(point) * 4
    enlarged = cv2.resize(image, (192, 192), interpolation=cv2.INTER_CUBIC)
    assert np.abs(align(enlarged, landmarks).astype(int) - image).mean() < 2  # without the half pixel of OpenCV: 7


def test_align_shrinks_without_aliasing():
    noise = np.random.default_rng(0).integers(0, 256, (960, 960)).astype(np.uint8)  # standard deviation 74
    landmarks = np.zeros((468, 2), np.float32)
    for pair, point in zip(((33, 133), (362, 263), (61, 291)), REFERENCE_POINTS, strict=True):
        landmarks[list(pair)] = np.float32(point) * 20
    assert align(noise, landmarks).std() < 8  # a mean of 400 pixels has 3.7; one pixel picked of 400 has 74


# --- the real data


@pytest.mark.data
def test_fer2013_images_themselves_are_answered(finder, fer2013):
    images = fer2013.public_test.images
    sample = images[np.random.default_rng(0).choice(len(images), 200, replace=False)]
    answered = sum(bool(finder.find(read_image(image))) for image in sample)
    assert answered >= 194  # 97 %; of all 3,589, 97.9 % are answered


@pytest.mark.data
def test_reference_points_are_those_of_the_training_set(finder, fer2013):
    from benchmarks.measure_alignment import find_points

    images = fer2013.training.images
    sample = images[np.random.default_rng(1).choice(len(images), 300, replace=False)]
    means = find_points(sample, finder).mean(axis=0)
    assert np.abs(means - REFERENCE_POINTS).max() < 0.8  # four standard errors of this sample's mean


# --- what it stands on


def test_importing_loads_nothing_and_neither_tensorflow_nor_mediapipe_is_ever_imported():
    program = f"""
import sys
from emotion.faces import FaceFinder, read_image
assert "emotion.recognizer" not in sys.modules
faces = FaceFinder().find(read_image({str(DATA / "astronaut.jpg")!r}))
heavy = [name for name in ("tensorflow", "keras", "jax", "mediapipe", "matplotlib", "gradio") if name in sys.modules]
print(len(faces), heavy)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "1 []"
