"""Small video files for tests, written with PyAV itself, so that what reads them is checked by another program."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

CODECS = {".webm": "libvpx-vp9", ".gif": "gif", ".mpg": "mpeg2video", ".wmv": "wmv2"}


def moving_square(count=8, height=48, width=64):
    """A bright square that moves to the right over a gradient, uint8 (T, H, W, 3)."""
    rows, columns = np.mgrid[0:height, 0:width]
    still = np.stack([rows * 200 // height, columns * 200 // width, np.full_like(rows, 60)], axis=2).astype(np.uint8)
    frames = np.repeat(still[None], count, axis=0)
    for index, frame in enumerate(frames):
        frame[height // 4 : height // 2, 2 * index : 2 * index + width // 4] = [250, 240, 20]
    return frames


def add_video(container, frames, codec="libx264", pts=None, time_base=Fraction(1, 25), exact=False, turn=None):
    """Encode frames into an open container."""
    stream = container.add_stream("libx264rgb" if exact else codec, rate=25)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = "rgb24" if exact else "rgb8" if codec == "gif" else "yuv444p" if frames.shape[1] % 2 else "yuv420p"
    stream.codec_context.time_base = stream.time_base = time_base
    stream.options = {"qp": "0", "preset": "ultrafast"} if "264" in stream.codec_context.codec.name else {}
    if turn is not None:
        stream.set_display_rotation(*turn)
    for index, image in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = index if pts is None else pts[index], time_base
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def add_sound(container, seconds=1.0, codec="aac", rate=16_000):
    """Encode a tone into an open container; streams must be added before frames are written."""
    stream = container.add_stream(codec, rate=rate, layout="mono")
    tone = (np.sin(np.arange(int(seconds * rate)) * 0.1) * 8000).astype(np.int16)
    for start in range(0, len(tone), 1024):
        piece = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="s16", layout="mono")
        piece.rate, piece.pts, piece.time_base = rate, start, Fraction(1, rate)
        container.mux(stream.encode(piece))
    container.mux(stream.encode())


def write_video(path, frames=None, **options):
    """Write a file whose format follows from its ending; returns the path."""
    frames = moving_square() if frames is None else frames
    options.setdefault("codec", CODECS.get(path.suffix, "libx264"))
    with av.open(str(path), "w") as container:
        add_video(container, frames, **options)
    return path


def write_with_sound(path, frames=None, seconds=0.6, codec="aac"):
    """Write a file with a tone; returns the path."""
    frames = moving_square() if frames is None else frames
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        add_sound(container, seconds, codec)
        for image in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
    return path


def sound_packets(path):
    """The bytes and times of a file's sound packets."""
    with av.open(str(path)) as container:
        return [
            (bytes(packet), packet.pts * packet.time_base)
            for packet in container.demux(audio=0)
            if packet.dts is not None
        ]
