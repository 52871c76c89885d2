"""Any picture a person may hand over -> one kind of array: uint8 RGB, the way up that the photographer saw it."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 50_000_000
"""Largest picture that is decoded: 150 MB as RGB. 50-megapixel phones stay just under it; decompression bombs do not."""


MAX_SIDE = 32_766
"""Longest side in pixels that OpenCV can warp."""


class ImageError(ValueError):
    """The picture cannot be read. The message is one sentence that tells the person who chose it what to do."""


def read_image(source: object) -> np.ndarray:
    """Reads a picture in any usual mode: grey, palette, RGBA, CMYK, 16-bit, EXIF-rotated.

    Transparent parts become white, the first frame of an animation is taken, 16-bit levels are divided by 256.

    Args:
        source: path (str or Path), bytes, file object opened in binary mode, PIL image, or array of shape (h, w),
            (h, w, 1), (h, w, 3) RGB or (h, w, 4) RGBA: integers 0..255 (uint16: 0..65535), booleans, or floats in
            0..1 or 0..255.

    Returns:
        uint8 array of shape (h, w, 3), RGB, EXIF rotation applied.

    Raises:
        ImageError: there is no such file, it is no picture, it is cut off, it has more than `MAX_PIXELS` pixels or a
            side longer than `MAX_SIDE`, or the array has another shape, type or range.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        if not Path(source).is_file():
            raise ImageError(f"The image must be an existing file. Received: {source}")
    elif not hasattr(source, "read"):
        raise ImageError(f"The image must be a path, bytes, file, PIL image or array. Received: {type(source).__name__}")
    try:
        with Image.open(source) as image:
            return _from_pil(image)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"The image must have at most {MAX_PIXELS // 10**6} megapixels: make it smaller. ({error})") from error
    except Exception as error:  # a broken file makes Pillow's readers stumble in ways that no list of exceptions covers
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> ImageError:
    rule = "The file must be a whole picture in a usual format: save it again as JPEG or PNG, or download it again."
    return ImageError(rule if isinstance(error, UnidentifiedImageError) else f"{rule} ({error})")


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"The image must have at least one pixel. Received: {width}x{height}")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ImageError(
            f"The image must have at most {MAX_PIXELS // 10**6} megapixels and {MAX_SIDE} pixels a side: make it smaller. "
            f"Received: {width}x{height}"
        )


def _from_pil(image: Image.Image) -> np.ndarray:
    _check_size(*image.size)  # known from the header, before any pixel is decoded
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):  # Pillow would clip these to 0..255 instead of scaling them
            return _from_array(np.asarray(image))
        if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(image.convert("RGB"))  # a copy: Pillow's own pixels cannot be drawn on
    except ImageError:
        raise
    except Exception as error:  # as above: decoding happens here
        raise _unreadable(error) from error


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        raise ImageError(f"The image array must have shape (h, w), (h, w, 3) or (h, w, 4). Received: {array.shape}")
    _check_size(array.shape[1], array.shape[0])
    levels = _to_levels(array)
    if levels.ndim == 3 and levels.shape[2] == 4:
        return _from_pil(Image.fromarray(levels))
    return np.stack([levels] * 3, axis=-1) if levels.ndim == 2 else np.ascontiguousarray(levels)


def _to_levels(array: np.ndarray) -> np.ndarray:
    """Brings numbers of any type to uint8 grey levels 0..255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "buif" or not np.isfinite(array).all():
        raise ImageError(f"The image array must hold finite numbers. Received: {array.dtype}, or NaN or infinity in it")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 65535:
        raise ImageError(f"The image's levels must lie in 0..255 (or 0..1, or 16-bit 0..65535). Received: {low:g}..{high:g}")
    if (array.dtype.kind, array.dtype.itemsize) == ("u", 2) or high > 255:  # in either byte order
        return (array / 256).astype(np.uint8)
    if array.dtype.kind == "b" or (array.dtype.kind == "f" and high <= 1):
        return np.rint(array * 255.0).astype(np.uint8)
    return np.rint(array).astype(np.uint8)


def area_resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes a picture to a smaller size, without aliasing.

    It is halved first as often as that leaves it no smaller: halving is by far OpenCV's fastest way to average areas, and what is
    left to do afterwards takes a fraction of the time.

    Args:
        image: uint8 (h, w, channels).
        width, height: of the result, in pixels.

    Returns:
        uint8 (height, width, channels).
    """
    while all(now % 2 == 0 and now >= 2 * new for now, new in zip(image.shape, (height, width), strict=False)):
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
