"""Images of every kind come in as upright 8-bit RGB, and bad files are refused by name."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tenfold.data import decode_image, read_image
from tenfold.data import images as images_module
from tenfold.data.images import check_image, load_crop, load_image
from tenfold.errors import DataError, MissingDataError


def picture(width=40, height=24):
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], axis=2).astype(np.uint8)


def test_rgb_comes_back_as_written(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture())


def test_grey_fills_three_channels(tmp_path):
    grey = picture()[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    wide = np.linspace(0, 65535, 40 * 24).reshape(24, 40).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / f"a{suffix}")
    expected = np.floor(wide / 257.0 + 0.5)
    got = read_image(tmp_path / f"a{suffix}")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[:, :, 0], expected)


def test_sixteen_bit_rgb_keeps_its_high_byte(tmp_path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    wide = np.array([[[0, 32896, 65535], [257, 514, 771]]], ">u2")  # whole multiples of 257
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" + wide.tobytes())),
        (b"IEND", b""),
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[0, 128, 255], [1, 2, 3]]])


def test_damaged_exif_does_not_cost_the_image(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=b"Exif\0\0 nothing of the kind")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture())


@pytest.mark.parametrize("values", [np.array([[0, 70000]], np.int32), np.array([[0.0, 1.0]], np.float32)])
def test_numbers_of_unknown_range_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "depth.tif")
    with pytest.raises(DataError, match=r"depth\.tif holds numbers of mode [IF] .* allowed are 8-bit and 16-bit"):
        read_image(tmp_path / "depth.tif")


def test_transparent_pixels_lie_over_white(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0] = [[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [[10, 20, 30], [255, 255, 255], [127, 127, 127]])


def test_transparent_colour_of_a_palette_lies_over_white(tmp_path):
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    indexed.putpalette([5, 6, 7, 100, 110, 120])
    indexed.save(tmp_path / "a.gif", transparency=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.gif")[0], [[5, 6, 7], [255, 255, 255]])


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 0, 0)).save(tmp_path / "a.jpg")
    colour = read_image(tmp_path / "a.jpg")[8, 8].astype(int)
    assert np.abs(colour - [255, 0, 255]).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(tmp_path, orientation):
    upright = picture()
    # How a camera stores the picture, by the EXIF definition of row 0 and column 0.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright)


def test_one_channel_gives_grey(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    expected = np.asarray(Image.fromarray(picture()).convert("L"))
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.png", channels=1)), expected)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".gif", ".bmp", ".webp"])
def test_a_file_cut_in_half_is_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (read_image, check_image):
        with pytest.raises(DataError, match=rf"cut\{suffix}"):
            read(path)


def test_any_damage_is_a_data_error_or_an_image(tmp_path):
    """Flip bytes all over a file: nothing but DataError may come out."""
    random = np.random.default_rng(0)
    for suffix in (".jpg", ".png", ".tif", ".gif"):
        Image.fromarray(picture()).save(tmp_path / f"a{suffix}")
        whole = np.frombuffer((tmp_path / f"a{suffix}").read_bytes(), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[random.integers(0, len(whole), 5)] = random.integers(0, 256, 5)
            with contextlib.suppress(DataError):
                assert decode_image(damaged.tobytes(), "damaged").ndim == 3


def test_what_is_no_image_is_refused_by_name(tmp_path):
    (tmp_path / "note.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"note\.jpg is not an image that can be read"):
        read_image(tmp_path / "note.jpg")


def test_formats_that_run_programs_stay_closed():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    with pytest.raises(DataError, match="not an image that can be read"):
        decode_image(postscript, "a.eps")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"no image at .*gone\.png"):
        read_image(tmp_path / "gone.png")


def test_too_many_pixels_are_refused_before_decoding(monkeypatch):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 60_000, 8, 2, 0, 0, 0)  # some bytes that ask for 18 GB
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(DataError, match="huge is too large"):
        decode_image(header + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")), "huge")
    monkeypatch.setattr(images_module, "MAX_PIXELS", 100)
    content = io.BytesIO()
    Image.new("RGB", (11, 10)).save(content, "PNG")
    with pytest.raises(DataError, match="11 x 10 pixels; at most 100 pixels"):
        decode_image(content.getvalue(), "big")


@pytest.mark.parametrize(("channels", "orientation"), [(3, 1), (3, 6), (1, 1)])
def test_a_crop_decoded_at_reduced_size_shows_the_same_as_full_decoding(tmp_path, channels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.fromarray(picture(60, 40)).resize((1200, 800), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=95, exif=exif)
    whole = load_image(tmp_path / "a.jpg", channels)
    box = (100, 200, 600, 700)
    expected = np.asarray(whole.resize((64, 64), Image.Resampling.BILINEAR, box=box)).astype(int)
    got = np.asarray(load_crop(tmp_path / "a.jpg", lambda *_: box, 64, channels=channels)).astype(int)
    assert got.shape == expected.shape
    assert np.abs(got - expected).mean() < 1.5  # grey levels; a box off by one pixel of 500 gives more
    assert np.abs(got - expected).max() < 12


def test_a_crop_is_chosen_in_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    seen = []
    load_crop(tmp_path / "a.jpg", lambda width, height: seen.append((width, height)) or (0, 0, 5, 5), 4)
    assert seen == [(20, 30)]
