"""Clips as frames: reading any usual video upright and in step, writing H.264 that plays in every browser.

FFmpeg does the work, through PyAV, whose wheels carry it together with the H.264 encoder x264. Sound is dropped.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation

LONG_SIDE = 1280
"""Longer side of the pictures in pixels, at most: what a page shows. Larger frames are made smaller."""

MAX_PIXELS = 4096 * 2304
"""Largest frame that is decoded: 4K. A decoder may hold a dozen frames at once."""

# What cameras, phones, browsers and editors write. The rest of what FFmpeg knows stays shut: photos and texts, which are no
# clips, and playlists, which would make it open other files and addresses.
_FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif"

# On a machine with many cores, decoder and encoder would otherwise keep a frame for each of them.
_THREADS = 2

_TICKS = 90_000  # a second: the usual time base of video


class VideoError(ValueError):
    """The clip cannot be analysed. The message is one sentence that tells the person who chose it what to do."""


class Frame(NamedTuple):
    """One frame of a clip.

    Attributes:
        picture: uint8 (h, w, 3) RGB, upright, square pixels, even sides, no longer than `LONG_SIDE`.
        seconds: since the clip's first frame.
        share: how much of the clip lies before it, 0..1.
    """

    picture: np.ndarray
    seconds: float
    share: float


class Pace:
    """Picks moments at an even pace from a clip of any frame rate, also a varying one."""

    def __init__(self, rate: float):
        """Takes the most moments a second.

        Raises:
            ValueError: `rate` is not positive.
        """
        if not rate > 0:
            raise ValueError(f"rate must be a positive number a second. Received: {rate}")
        self._rate = rate
        self._slot = -1

    def picks(self, seconds: float) -> bool:
        """Returns whether the moment is the first one in its slot of 1/rate seconds; the moments must ascend."""
        # A quarter of a slot early still counts: clips round their times, some to whole milliseconds.
        slot = math.floor(seconds * self._rate + 0.25)
        if slot <= self._slot:
            return False
        self._slot = slot
        return True


@contextmanager
def open_clip(path: Path | str, max_seconds: float) -> Iterator["ClipReader"]:
    """Opens a clip and checks what its header says, before any frame is decoded.

    Raises:
        VideoError: there is no such file, it is no clip, or it is too long or too large.
    """
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"The video must be an existing file. Received: {path}")
    try:
        # The full path, since FFmpeg takes a name such as "a:b.mp4" for an address.
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
        container = av.open(str(path.resolve()), options=options)
    except av.error.FFmpegError as error:
        raise _unreadable(f"{path.name}, {path.stat().st_size:,} bytes") from error
    with container:
        yield ClipReader(container, path.name, max_seconds)


class ClipReader:
    """The frames of an open clip. `open_clip` makes it.

    Attributes:
        width, height: of the clip as a player shows it, in pixels.
        seconds: its length as far as it was read.
    """

    def __init__(self, container: InputContainer, name: str, max_seconds: float):
        self._container, self._name, self._max_seconds = container, name, max_seconds
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None or Disposition.attached_pic in stream.disposition:
            raise VideoError(f"The file must hold moving pictures that can be decoded, not sound alone. Received: {name}")
        stream.thread_type, stream.thread_count = "AUTO", _THREADS
        self._stream = stream
        self._declared = _declared_seconds(container, stream)
        self._check_length(self._declared or 0)
        if stream.width * stream.height > MAX_PIXELS:
            raise VideoError(
                f"The video must have at most 4096x2304 pixels: export it smaller. Received: {name}, "
                f"{stream.width}x{stream.height}"
            )
        self.width = self.height = 0
        self.seconds = 0.0

    def frames(self, max_fps: float) -> Iterator[Frame]:
        """Decodes the clip, frame by frame, once.

        Args:
            max_fps: frames a second, at most; surplus ones are skipped.

        Raises:
            VideoError: the clip is longer than its header says, broken, or cut off.
        """
        pace, step = Pace(max_fps), float(1 / (self._stream.guessed_rate or 30))
        first = last = size = None
        for decoded, share in self._decode():
            time = decoded.time
            if last is not None and (time is None or time <= last):  # some AVI files, and glued broadcasts
                time = last + step
            last = time or 0.0
            first = last if first is None else first
            seconds = last - first
            self.seconds = seconds + (float((decoded.duration or 0) * decoded.time_base) or step)
            self._check_length(seconds)
            if pace.picks(seconds):
                size = size or self._fit(decoded)
                yield Frame(_upright(decoded, size), seconds, share)
        if first is None:
            raise _unreadable(f"{self._name} (no picture in it can be decoded)")
        if self.seconds < 0.9 * (self._declared or 0) - 0.5:
            raise _unreadable(f"{self._name} (it ends after {self.seconds:.1f} of {self._declared:.1f} seconds)")

    def _decode(self) -> Iterator[tuple[av.VideoFrame, float]]:
        bytes_read = 0
        try:
            for packet in self._container.demux(self._stream):
                bytes_read = max(bytes_read, packet.pos or 0)
                for frame in self._decode_packet(packet):
                    # A clip that a browser recorded does not say how long it is.
                    done = self.seconds / self._declared if self._declared else bytes_read / self._container.size
                    yield frame, min(1.0, done)
        except av.error.FFmpegError as error:
            raise _unreadable(f"{self._name} (after {self.seconds:.1f} seconds: {error.strerror})") from error

    def _decode_packet(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except av.error.InvalidDataError:
            if self.seconds > 0:
                raise
            return []  # a recorded broadcast starts in the middle: nothing can be decoded before its first whole picture

    def _check_length(self, seconds: float) -> None:
        # A camera that is stopped at five minutes writes a few frames more.
        if seconds > self._max_seconds + 1:
            raise VideoError(
                f"The video must be at most {_clock(self._max_seconds)} minutes long: cut it first. "
                f"Received: {self._name}, {'more than ' if not self._declared else ''}{_clock(seconds)}"
            )

    def _fit(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Sets `width` and `height` from the first frame; returns the size of all pictures, before they are turned."""
        width, height = frame.width * float(self._stream.sample_aspect_ratio or 1), frame.height
        shrink = min(1.0, LONG_SIDE / max(width, height))
        # H.264 in yuv420p holds colour for every second pixel only.
        size = tuple(max(2, 2 * round(side * shrink / 2)) for side in (width, height))
        self.width, self.height = (round(width), height)[:: -1 if _quarter_turns(frame) % 2 else 1]
        return size


def _upright(frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    # Down to the picture's size by averaging, as a lens would; the other methods drop pixels.
    method = Interpolation.AREA if frame.width > size[0] else Interpolation.BILINEAR
    picture = frame.reformat(*size, format="rgb24", interpolation=method, threads=_THREADS).to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, _quarter_turns(frame)))


def _quarter_turns(frame: av.VideoFrame) -> int:
    """How often the frame must be turned by 90 degrees, against the clock: phones film sideways and note it."""
    return round(frame.rotation / 90) % 4


def _declared_seconds(container: InputContainer, stream: av.VideoStream) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _unreadable(what: str) -> VideoError:
    return VideoError(
        "The file must be a whole video in a usual format (MP4, MOV, WebM, MKV, AVI): export or download it again. "
        f"Received: {what}"
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def create_clip(path: Path | str, fps: float) -> Iterator["ClipWriter"]:
    """Opens an MP4 for writing; it is complete when the block is left without an exception.

    Args:
        path: where; ends on .mp4.
        fps: about how many frames a second will come: how long the last one is shown, and a hint for the encoder.
    """
    # The index goes first, so that a browser plays the clip while it loads.
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        writer = ClipWriter(container, fps)
        yield writer
        writer.finish()


class ClipWriter:
    """Writes pictures as H.264. `create_clip` makes it."""

    def __init__(self, container: OutputContainer, fps: float):
        self._container, self._fps = container, Fraction(fps).limit_denominator(1001)
        self._stream = None

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Adds a frame.

        Args:
            picture: uint8 (h, w, 3) RGB, even sides, all of the same size.
            seconds: when it is shown; later than the one before.
        """
        if self._stream is None:
            self._stream = self._add_stream(*picture.shape[:2])
        # BT.709, and said so in the stream: players guess otherwise, and colours shift.
        frame = av.VideoFrame.from_ndarray(picture).reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=_THREADS
        )
        frame.time_base, frame.pts, frame.duration = Fraction(1, _TICKS), round(seconds * _TICKS), round(_TICKS / self._fps)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Writes what the encoder still holds."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())

    def _add_stream(self, height: int, width: int) -> av.VideoStream:
        # Fast, for slightly larger files. No B-frames: where frames come at uneven times, MP4's length would come out wrong.
        options = {"preset": "veryfast", "crf": "23", "bf": "0"}
        stream = self._container.add_stream("libx264", rate=self._fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.thread_count = _THREADS
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        return stream
