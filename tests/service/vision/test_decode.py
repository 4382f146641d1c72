"""Decoding: every format, every orientation, and damaged files."""

import io
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from service.errors import Reason, RequestError
from service.vision.decode import EncodedImage, decode

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow, about damaged files

FORMATS = {
    "jpeg": ("JPEG", {"quality": 90}),
    "jpeg, 4:4:4": ("JPEG", {"quality": 95, "subsampling": 0}),
    "jpeg, progressive": ("JPEG", {"quality": 80, "progressive": True}),
    "png": ("PNG", {"compress_level": 1}),
    "webp": ("WEBP", {"quality": 80}),
    "webp, lossless": ("WEBP", {"lossless": True, "method": 0}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "tiff": ("TIFF", {}),
    "tiff, lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff, jpeg": ("TIFF", {"compression": "jpeg"}),
}


@pytest.fixture(scope="module")
def small(open_image):
    """A photo of 160 x 107 pixels."""
    return open_image("flower").resize((160, 107))


@pytest.mark.parametrize(("form", "options"), FORMATS.values(), ids=FORMATS)
def test_pixels_equal_pillows(small, encoded, form, options):
    data = encoded(small, form, **options)
    assert np.array_equal(decode(data), Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
@pytest.mark.parametrize("options", [{"quality": 75}, {"quality": 95, "subsampling": 0}, {"progressive": True}])
def test_jpegs_of_photos_equal_pillows_bit_for_bit(open_image, encoded, name, options):
    data = encoded(open_image(name), "JPEG", **options)
    assert np.array_equal(decode(data), Image.open(io.BytesIO(data)))


MODES = {
    "JPEG": ("L", "CMYK"),
    "PNG": ("L", "1", "P", "RGBA", "LA"),
    "WEBP": ("RGBA",),
    "TIFF": ("L", "1", "P", "CMYK", "RGBA", "LA"),
    "GIF": ("L", "1", "P"),
    "BMP": ("L", "1", "P", "RGBA"),
}


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes])
def test_every_colour_mode_is_decoded(small, encoded, form, mode):
    data = encoded(small.quantize(32) if mode == "P" else small.convert(mode), form)
    assert np.array_equal(decode(data), Image.open(io.BytesIO(data)).convert("RGB"))


def test_cmyk_is_not_inverted(small, encoded):
    """Adobe's CMYK JPEGs store inverted inks; the colours must come out as they went in."""
    data = encoded(small.convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(data).astype(int) - np.asarray(small)).mean() < 3


@pytest.mark.parametrize(("channels", "suffix"), [(1, ".png"), (3, ".png"), (4, ".png"), (1, ".tif"), (3, ".tif")])
def test_of_sixteen_bits_the_upper_eight_are_taken(small, channels, suffix):
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]  # OpenCV writes BGR
    deep = np.asarray(small.convert("RGBA")).astype(np.uint16)[:, :, order] * 257
    _, data = cv2.imencode(suffix, deep)
    expected = np.asarray(small)[:, :, :1].repeat(3, axis=2) if channels == 1 else np.asarray(small)
    assert np.array_equal(decode(data.tobytes()), expected)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_32_bits_are_refused(small, kind):
    _, data = cv2.imencode(".tif", np.asarray(small.convert("L")).astype(kind))
    with pytest.raises(RequestError, match="32-bit") as caught:
        decode(data.tobytes())
    assert caught.value.reason is Reason.NOT_AN_IMAGE


def test_transparent_pixels_are_blended_with_white(small, encoded):
    """The colours that are stored under transparent pixels are not shown."""
    alpha = np.zeros((107, 160), np.uint8)
    alpha[:, 40:80], alpha[:, 80:] = 128, 255
    image = small.copy()
    image.putalpha(Image.fromarray(alpha))
    pixels, opaque = decode(encoded(image, "PNG")).astype(int), np.asarray(small).astype(int)
    assert (pixels[:, :40] == 255).all()
    assert np.abs(pixels[:, 40:80] - (opaque[:, 40:80] * 128 + 255 * 127) / 255).max() <= 1
    assert np.array_equal(pixels[:, 80:], opaque[:, 80:])


def test_a_transparent_palette_is_blended_with_white(encoded):
    image = Image.new("P", (8, 8), 3)
    image.putpalette([10, 20, 30] * 8)
    assert (decode(encoded(image, "PNG", transparency=3)) == 255).all()
    assert (decode(encoded(image, "GIF", transparency=3)) == 255).all()


def test_the_first_frame_of_an_animated_gif_is_decoded(encoded):
    frames = [Image.new("RGB", (32, 16), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert (decode(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(small, encoded, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(small, form, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    header = EncodedImage(data)
    assert (header.width, header.height) == upright.size == ((107, 160) if orientation >= 5 else (160, 107))
    assert np.array_equal(decode(data), upright.convert("RGB"))
    assert np.array_equal(header.image(), upright.convert("RGB"))


def attempt(data: bytes, **options) -> np.ndarray | Reason:
    """The pixels, or the reason of the refusal."""
    try:
        return decode(data, **options)
    except RequestError as error:
        return error.reason


def prefixes(data: bytes):
    """A file cut off at every one of its first bytes, then at some hundred offsets."""
    return sorted({*range(1, 64), *np.linspace(64, len(data) - 1, 150).astype(int).tolist()})


@pytest.mark.parametrize(("form", "options"), FORMATS.values(), ids=FORMATS)
def test_cut_off_files_are_refused_or_decoded_completely(small, encoded, form, options):
    """An incomplete image is never returned as a complete one. (Some formats end in bytes without pixels.)"""
    data = encoded(small, form, **options)
    whole, refused = decode(data), 0
    for length in prefixes(data):
        pixels = attempt(data[:length])
        if isinstance(pixels, Reason):
            assert pixels in (Reason.UNDECODABLE, Reason.NOT_AN_IMAGE)
            refused += 1
        else:
            assert np.array_equal(pixels, whole), f"cut to {length} of {len(data)} bytes"
    assert refused > 0.75 * len(prefixes(data))


def test_a_cut_off_jpeg_with_an_end_marker_is_refused(open_image, encoded):
    """Pillow would return the missing part in grey."""
    data = encoded(open_image("coffee"), "JPEG")
    with pytest.raises(RequestError, match="cut off or corrupt"):
        decode(data[: len(data) // 2] + b"\xff\xd9")


def test_a_jpeg_with_extraneous_bytes_is_decoded(small, encoded):
    """As cameras write them: libjpeg warns, viewers show the image."""
    data = encoded(small, "JPEG")
    odd = data[:-2] + b"\0" * 16 + data[-2:]
    assert np.array_equal(decode(odd), decode(data))


KINDS = [("RGB", name) for name in FORMATS] + [
    ("P", "png"),
    ("P", "gif"),
    ("P", "tiff"),
    ("LA", "png"),
    ("CMYK", "jpeg"),
]


@pytest.fixture
def sound(small, encoded, mode, name) -> bytes:
    form, options = FORMATS[name]
    if mode == "P" and form != "TIFF":
        options = options | {"transparency": 3}
    return encoded(small.quantize(32) if mode == "P" else small.convert(mode), form, **options)


@pytest.mark.parametrize(("mode", "name"), KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bits_do_not_crash_the_process(sound, data):
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1) | st.integers(0, 200))  # headers matter most
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    pixels = attempt(bytes(damaged), max_pixels=1_000_000)
    if isinstance(pixels, Reason):
        assert pixels in (Reason.UNDECODABLE, Reason.NOT_AN_IMAGE, Reason.TOO_LARGE)
    else:
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3


def png_header(width: int, height: int) -> bytes:
    """A PNG header with an empty IDAT chunk."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def bombs(encoded) -> dict[str, bytes]:
    """Small files whose headers state huge sizes."""
    tiny = Image.new("RGB", (16, 16))
    jpeg = encoded(tiny, "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    bmp, gif = encoded(tiny, "BMP"), encoded(tiny, "GIF")
    return {
        "png": png_header(50_000, 50_000),
        "jpeg": jpeg[:frame] + struct.pack(">HH", 65_000, 65_000) + jpeg[frame + 4 :],
        "bmp": bmp[:18] + struct.pack("<II", 50_000, 50_000) + bmp[26:],
        "gif": gif[:6] + struct.pack("<HH", 65_000, 65_000) + gif[10:],
        "webp": encoded(Image.new("RGB", (8_000, 8_000)), "WEBP", lossless=True, method=0, quality=0),
        "tiff": encoded(Image.new("1", (20_000, 20_000)), "TIFF", compression="group4"),
    }


def test_huge_sizes_are_refused_before_decoding(encoded, tmp_path):
    """In a process that may use 64 MB more memory, in which none of them could be decoded."""
    files = bombs(encoded)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    script = f"""
import resource, time
from pathlib import Path
from service.errors import RequestError
from service.vision.decode import EncodedImage
pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
if pages:
    limit = pages * resource.getpagesize() + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for file in sorted(Path({str(tmp_path)!r}).iterdir()):
    start = time.perf_counter()
    try:
        EncodedImage(file.read_bytes())
    except RequestError as error:
        print(file.name, error.reason, time.perf_counter() - start < 0.5)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == [f"{name} too_large True" for name in sorted(files)]


def test_images_of_too_many_pixels_are_refused(small, encoded):
    data = encoded(small, "PNG")
    assert decode(data, max_pixels=160 * 107).shape == (107, 160, 3)
    with pytest.raises(RequestError, match="160 x 107") as caught:
        decode(data, max_pixels=160 * 107 - 1)
    assert caught.value.reason is Reason.TOO_LARGE


def scans(colour: int) -> bytes:
    """An empty scan of one of a JPEG's colours, as baseline JPEGs may have them."""
    table = b"\x00" if colour == 1 else b"\x11"
    return b"\xff\xda\0\x08\1" + bytes([colour]) + table + b"\0\x3f\0" + bytes(4)


@pytest.mark.parametrize("kind", ["progressive", "garbage before the frame", "one colour after another"])
def test_a_jpeg_with_thousands_of_scans_is_refused(encoded, kind):
    large = Image.new("RGB", (4000, 4000), "teal")
    data = encoded(large, "JPEG", progressive=kind != "one colour after another", subsampling=0)
    if kind == "one colour after another":
        slow = data[: data.index(b"\xff\xda")] + (scans(1) + scans(2) + scans(3)) * 1000 + b"\xff\xd9"
    else:
        slow = data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 200 + data[-2:]
    if kind == "garbage before the frame":
        frame = slow.index(b"\xff\xc2")
        slow = slow[:frame] + b"\0" + slow[frame:]
    start = time.perf_counter()
    with pytest.raises(RequestError, match="scans"):
        decode(slow)
    assert time.perf_counter() - start < 10


def test_a_tiff_of_huge_tiles_is_refused():
    """A tile is decoded as a whole: two gigabytes for these 150 bytes."""
    pixels = zlib.compress(b"")
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, 46336), (323, 46336)]
    tags += [(324, 8 + 2 + 12 * 10 + 4), (325, len(pixels))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels
    with pytest.raises(RequestError, match="46336 x 46336") as caught:
        decode(data)
    assert caught.value.reason is Reason.TOO_LARGE


def test_threads_do_not_disturb_one_another(open_image, encoded):
    files = [encoded(open_image(name), form) for name in ("flower", "china") for form in ("JPEG", "PNG", "WEBP")]
    expected = [decode(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for pixels, data in zip(pool.map(decode, files * 8), expected * 8, strict=True):
            assert np.array_equal(pixels, data)
