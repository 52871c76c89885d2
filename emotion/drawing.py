"""Draws what was found on the photo: boxes, captions and landmarks that stay legible at any image size.

Only drawing happens here: what a caption says is the caller's choice. Pillow sets the text, because OpenCV's fonts have
neither accents nor emoji; everything else is OpenCV on the array itself, fast enough for video.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emotion.labels import COLOURS, EMOJI

SMALLEST_SIDE = 480
"""A picture whose longer side is below this many pixels is enlarged before drawing; captions would cover its faces."""

EMOJI_FONTS = (("NotoColorEmoji.ttf", 109), ("Apple Color Emoji.ttc", 96), ("seguiemj.ttf", 96))
"""The emoji fonts of Linux, macOS and Windows with a size (pixels) each has glyphs for; Pillow knows where they lie."""


@dataclass(frozen=True)
class Tag:
    """What to draw for one face.

    Attributes:
        box: x, y, width, height in pixels of the picture.
        captions: the same message at falling length; the first that fits the face is drawn. Empty: no caption.
        emotion: a name of `COLOURS`, which gives colour and emoji; any other name is drawn in the colour of "neutral"
            without an emoji ("not sure").
        landmarks: float (n, 2), pixels of the picture, drawn as dots; None draws none.
        chosen: drawn with a thicker line and always with its longest caption.
    """

    box: tuple[int, int, int, int]
    captions: tuple[str, ...]
    emotion: str
    landmarks: np.ndarray | None = None
    chosen: bool = False


def annotate(image: np.ndarray, tags: Sequence[Tag]) -> np.ndarray:
    """Draws the tags on a copy of the picture.

    Args:
        image: uint8 (height, width, 3), RGB.
        tags: one for each face; chosen ones are drawn last, on top of their neighbours.

    Returns:
        uint8 RGB, `enlargement(image)` times the size of `image`.

    Raises:
        ValueError: `image` is not uint8 RGB.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 of shape (height, width, 3). Received: {image.dtype} {image.shape}")
    scale = enlargement(image)
    canvas = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else image.copy()
    thickness = max(2, round(max(canvas.shape) / 300))
    for tag in sorted(tags, key=lambda tag: tag.chosen):
        x, y, width, height = (scale * side for side in tag.box)
        if tag.landmarks is not None:
            # Landmarks count from the corner of the first pixel, OpenCV from its centre.
            _draw_landmarks(canvas, np.asarray(tag.landmarks) * scale - 0.5, radius=max(0.5, width / 160))
        _draw_box(canvas, (x, y, width, height), _rgb(tag.emotion), thickness * 3 // 2 if tag.chosen else thickness)
        _draw_caption(canvas, (x, y, width, height), tag)
    return canvas


def enlargement(image: np.ndarray) -> int:
    """Returns the whole factor by which `annotate` enlarges a picture (1 for all but thumbnails)."""
    return max(1, math.ceil(SMALLEST_SIDE / max(image.shape[:2])))


def text_colour(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns black or white, whichever reads better on an RGB background (0..255)."""
    black, white = (0, 0, 0), (255, 255, 255)
    return max(black, white, key=lambda ink: contrast(ink, background))


def contrast(first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    """Returns the contrast ratio (1..21) of two RGB colours after WCAG 2.2; 4.5 is enough for small text."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(rgb: tuple[int, int, int]) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


def _rgb(emotion: str) -> tuple[int, int, int]:
    colour = COLOURS.get(emotion, COLOURS["neutral"])
    return tuple(bytes.fromhex(colour.removeprefix("#")))


def _draw_box(canvas: np.ndarray, box: tuple[int, int, int, int], colour: tuple[int, int, int], thickness: int) -> None:
    x, y, width, height = box
    corners = (x, y), (x + width - 1, y + height - 1)
    # A dark rim below the coloured line keeps it visible on a background of the same colour.
    cv2.rectangle(canvas, *corners, (20, 20, 20), thickness + max(2, thickness // 2), cv2.LINE_AA)
    cv2.rectangle(canvas, *corners, colour, thickness, cv2.LINE_AA)


def _draw_landmarks(canvas: np.ndarray, points: np.ndarray, radius: float) -> None:
    # OpenCV takes fractions of a pixel as whole numbers of 1/16: small faces keep the shape of the mesh.
    for x, y in np.round(points * 16).astype(int):
        cv2.circle(canvas, (int(x), int(y)), round(radius * 16), (255, 255, 255), cv2.FILLED, cv2.LINE_AA, shift=4)


def _draw_caption(canvas: np.ndarray, box: tuple[int, int, int, int], tag: Tag) -> None:
    if not tag.captions:
        return
    x, y, width, _ = box
    longest = max(canvas.shape)
    size = round(min(max(width / 5.5, longest / 55), longest / 24))
    room = canvas.shape[1] if tag.chosen else max(1.3 * width, 4 * size)
    patches = (_caption(text, EMOJI.get(tag.emotion), size, _rgb(tag.emotion)) for text in tag.captions)
    patch = next((patch for patch in patches if patch.shape[1] <= room), None)
    if patch is None:
        patch = _caption(tag.captions[-1], None, size, _rgb(tag.emotion))
    height, width = min(patch.shape[0], canvas.shape[0]), min(patch.shape[1], canvas.shape[1])
    left = min(max(x - height // 16, 0), canvas.shape[1] - width)
    top = min(max(y - height, 0), canvas.shape[0] - height)
    canvas[top : top + height, left : left + width] = patch[:height, :width]


@lru_cache(maxsize=256)
def _caption(text: str, emoji: str | None, size: int, background: tuple[int, int, int]) -> np.ndarray:
    """Sets one caption: uint8 RGB, as large as the text needs; `size` is the font size in pixels."""
    font = ImageFont.load_default(size)
    glyph = _emoji(emoji, round(size * 1.15)) if emoji else None
    pad, gap = round(size * 0.35), round(size * 0.3)
    ascent, descent = font.getmetrics()
    start = pad + (glyph.width + gap if glyph else 0)
    patch = Image.new("RGB", (start + math.ceil(font.getlength(text)) + pad, ascent + descent + pad), background)
    if glyph:
        patch.paste(glyph, (pad, (patch.height - glyph.height) // 2), glyph)
    ImageDraw.Draw(patch).text((start, patch.height / 2), text, font=font, fill=text_colour(background), anchor="lm")
    return np.asarray(patch)


@lru_cache(maxsize=64)
def _emoji(emoji: str, size: int) -> Image.Image | None:
    """Draws an emoji `size` pixels high with the system's font: RGBA, or None where no colour emoji font is installed."""
    for name, native_size in EMOJI_FONTS:
        try:
            font = ImageFont.truetype(name, native_size)
        except OSError:
            continue
        sheet = Image.new("RGBA", (2 * native_size, 2 * native_size))
        ImageDraw.Draw(sheet).text((native_size // 4, native_size // 4), emoji, font=font, embedded_color=True)
        glyph = sheet.crop(sheet.getbbox())
        return glyph.resize((max(1, round(size * glyph.width / glyph.height)), size), Image.Resampling.LANCZOS)
    return None
