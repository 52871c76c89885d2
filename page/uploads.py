"""What visitors send: checked before it is decoded, kept by nobody unless the operator asked for it."""

import base64
import binascii
import hashlib
import io
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from gradio.utils import get_upload_folder

from emotion.images import ImageError

KEEP_MINUTES = 15
"""How long Gradio's copies of what was sent stay in the page's private temporary folder."""

SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")  # how JPEG, PNG and BMP files begin, whatever their name


@dataclass(frozen=True)
class Settings:
    """What the operator decided when the page was started.

    Attributes:
        max_photo_mb, max_video_mb: larger photos and clips are refused, in megabytes (1e6 bytes).
        keep_folder: where every photo and clip that is read is kept; None (the default) keeps nothing.
    """

    max_photo_mb: float = 10
    max_video_mb: float = 300
    keep_folder: Path | None = None


def uploaded_path(file: object, what: str) -> Path:
    """Returns where an upload lies, never a path outside of Gradio's upload folder.

    Args:
        file: Gradio's description of a file, {"path": ...}.
        what: what to call it in the error's sentence, such as "photo".

    Raises:
        ImageError: it is no upload, or it was deleted meanwhile.
    """
    if not isinstance(file, dict):
        raise ImageError(f"The {what} must be an uploaded file (gradio_client's handle_file). Received: {file!r:.80}")
    path = Path(file.get("path") or "").resolve()
    # Gradio passes on any path that a client names; only what was uploaded may be read.
    if not (path.is_relative_to(Path(get_upload_folder()).resolve()) and path.is_file()):
        raise ImageError(f"The {what} is gone: uploads are deleted after {KEEP_MINUTES} minutes. Add it again.")
    return path


def photo_bytes(photo: object, max_mb: float) -> bytes:
    """Returns an uploaded photo's bytes after every check that needs no decoding.

    Args:
        photo: Gradio's description of a file: "path" of the upload, or "url" with base64 data ("data:image/png;base64,...").
        max_mb: largest size in megabytes (1e6 bytes).

    Raises:
        ImageError: the upload is gone, too large or not of an accepted type; the message says what to do.
    """
    url = photo.get("url") or "" if isinstance(photo, dict) else ""
    if url.startswith("data:") and not photo.get("path"):
        try:
            content = base64.b64decode(url.partition(",")[2], validate=True)
        except binascii.Error:
            raise ImageError("The data URL holds no valid base64. Encode the bytes of the image file again.") from None
        size = len(content)
    else:
        path = uploaded_path(photo, "photo")
        size = path.stat().st_size
        content = path.read_bytes() if size <= max_mb * 1e6 else b""
    if size > max_mb * 1e6:
        limit = f"at most {max_mb:g} MB are accepted"
        raise ImageError(f"The file has {size / 1e6:.1f} MB; {limit}. Make the photo smaller and add it again.")
    if not (content.startswith(SIGNATURES) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")):
        raise ImageError("The file is not a photo of a type this page reads. Save it as .jpg, .png, .webp or .bmp and add that.")
    return content


def safe_stem(file: dict) -> str:
    """Returns an upload's name without its ending, made safe for a new file name; "" when nothing of it is left."""
    stem = Path(file.get("orig_name") or file.get("path") or "").stem
    return re.sub(r"[^\w-]+", "-", stem)[:60].strip("-")


def answer_folder() -> Path:
    """Makes a new folder for what is sent back: inside Gradio's upload folder, so that it is deleted like the upload itself."""
    folder = Path(get_upload_folder()) / secrets.token_hex(8)
    folder.mkdir(parents=True)
    return folder


def keep(folder: Path | None, content: bytes | Path, name: str) -> None:
    """Keeps a copy of an upload if the operator named a folder for it; the same content is kept once.

    Args:
        folder: `Settings.keep_folder`; None keeps nothing.
        content: the upload's bytes or its path.
        name: a safe file name, with its ending.
    """
    if folder is None:
        return
    # A clip may be too large for memory.
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()[:12]
        if not any(folder.glob(f"*-{digest}-*")):
            source.seek(0)
            with (folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{digest}-{name}").open("wb") as copy:
                shutil.copyfileobj(source, copy)
