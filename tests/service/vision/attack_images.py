"""Image files that are small for what they ask of a decoder, by name. Each stands for a kind; see the tests."""

import io
import struct
import zlib
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

MB = 1_000_000


def encoded(image: Image.Image, form: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def _noise(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


# ---- JPEG


def jpeg_segment(marker: int, body: bytes = b"") -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(inserted: bytes, mode: str = "RGB") -> bytes:
    """A whole JPEG with bytes behind its first marker."""
    data = encoded(_noise(mode=mode), "JPEG")
    return data[:2] + inserted + data[2:]


def jpeg_of_scans(image: Image.Image, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = encoded(image, "JPEG", progressive=True, quality=30)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + b"\xff\xd9"


def jpeg_hidden_end(image: Image.Image, scans: int) -> bytes:
    """The same, with what looks like the file's end in a comment between the scans."""
    data = jpeg_of_scans(image, 10)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + jpeg_segment(0xFE, b"\xff\xd9") + last * (scans - 10) + b"\xff\xd9"


# ---- PNG

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes = b"", *, wrong: bool = False) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def png_of(width: int, height: int, pixels: Iterable[bytes], *, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG with given IDAT chunks."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return SIGNATURE + header + b"".join(chunk(b"IDAT", part) for part in pixels) + chunk(b"IEND")


def png_with(*chunks: bytes, at: int = 33, image: Image.Image | None = None) -> bytes:
    """A PNG with more chunks behind its header, or at another place (-12: behind the pixels)."""
    data = encoded(image or _noise(), "PNG")
    return data[:at] + b"".join(chunks) + data[at:]


def deflated(size: int, unit: bytes = bytes(MB)) -> bytes:
    """zlib's form of so many zeros (or repetitions of a unit)."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(unit) for _ in range(size // len(unit))]) + packer.flush()


# ---- GIF


def gif_with(inserted: bytes, canvas: tuple[int, int] = (64, 48)) -> bytes:
    """A GIF with blocks in front of its first frame."""
    data = encoded(_noise(mode="L").quantize(16), "GIF")
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:6] + struct.pack("<HH", *canvas) + data[10:start] + inserted + data[start:]


# ---- WebP


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_with(*before: tuple[bytes, bytes], after: Iterable[tuple[bytes, bytes]] = (), flags: int = 0) -> bytes:
    """A WebP in its extended form, with chunks around its pixels."""
    data = encoded(_noise(), "WEBP")
    extended = bytes([flags, 0, 0, 0]) + (63).to_bytes(3, "little") + (47).to_bytes(3, "little")
    return riff((b"VP8X", extended), *before, (data[12:16], data[20:]), *after)


def webp_frames(
    image: Image.Image,
    count: int = 1,
    *,
    canvas: tuple[int, int] = (64, 48),
    at: tuple[int, int] = (0, 0),
    alpha: int = 0,
    **options,
) -> bytes:
    """A moving WebP of frames that are all the same."""
    data = encoded(image, "WEBP", **options)
    chunks = data[12:] if data[12:16] != b"VP8X" else data[30:]
    number = [value.to_bytes(3, "little") for value in (at[0] // 2, at[1] // 2, image.width - 1, image.height - 1)]
    extended = bytes([2 | alpha << 4, 0, 0, 0]) + b"".join((side - 1).to_bytes(3, "little") for side in canvas)
    frame = (b"ANMF", b"".join(number) + b"\x0a\0\0\0" + chunks)
    return riff((b"VP8X", extended), (b"ANIM", bytes(6)), *[frame] * count)


# ---- TIFF


def tiff_of(
    tags: dict[int, tuple[int, list[int]]],
    *,
    order: str = "<",
    big: bool = False,
    tail: bytes = b"",
    following: int = 0,
) -> bytes:
    """A TIFF of one directory: tag -> (type, values). `tail` comes first: it begins at byte 16."""
    sizes = {1: "B", 2: "B", 3: "H", 4: "I", 5: "Q", 7: "B", 16: "Q"}
    mark = {"<": b"II", ">": b"MM"}[order]
    directory = 16 + len(tail) + (len(tail) & 1)
    count, number, room = ("Q", "Q", 8) if big else ("H", "I", 4)
    entry = 20 if big else 12
    values_at = directory + struct.calcsize(count) + entry * len(tags) + room
    entries, values = [], []
    for tag, (kind, given) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(given)}{sizes[kind]}", *given)
        head = struct.pack(f"{order}HH{number}", tag, kind, len(given))
        if len(packed) <= room:
            entries.append(head + packed.ljust(room, b"\0"))
        else:
            entries.append(head + struct.pack(order + number, values_at))
            values.append(packed)
            values_at += len(packed)
    start = mark + (
        struct.pack(order + "HHHQ", 43, 8, 0, directory) if big else struct.pack(order + "HI", 42, directory)
    )
    ifd = struct.pack(order + count, len(tags)) + b"".join(entries) + struct.pack(order + number, following)
    return start.ljust(16, b"\0") + tail.ljust(directory - 16, b"\0") + ifd + b"".join(values)


def tiff_tags(width: int, height: int, **more: tuple[int, list[int]]) -> dict[int, tuple[int, list[int]]]:
    return {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8]),
        259: (3, [1]),
        262: (3, [1]),
        277: (3, [1]),
        **{int(name.removeprefix("t")): value for name, value in more.items()},
    }


def tiff_strips(count: int, compression: int = 1, **options) -> bytes:
    """A TIFF of 64 x 64 pixels with so many strips, all in the same place."""
    return tiff_of(
        tiff_tags(64, 64, t259=(3, [compression]), t273=(4, [16] * count), t278=(4, [1]), t279=(4, [64] * count)),
        tail=bytes(4096),
        **options,
    )


def tiff_tiles(count: int, side: int = 16, compression: int = 1, pixels: int = 64, **options) -> bytes:
    return tiff_of(
        tiff_tags(
            pixels,
            pixels,
            t259=(3, [compression]),
            t322=(4, [side]),
            t323=(4, [side]),
            t324=(4, [16] * count),
            t325=(4, [256] * count),
        ),
        tail=bytes(4096),
        **options,
    )


def tiff_same_data(entries: int, size: int) -> bytes:
    """A TIFF with many unknown tags that all point to the same bytes."""
    one = tiff_of(tiff_tags(64, 64, t273=(4, [16]), t279=(4, [4096]), t278=(4, [64])), tail=bytes(size))
    directory = struct.unpack_from("<I", one, 4)[0]
    count = struct.unpack_from("<H", one, directory)[0]
    more = b"".join(struct.pack("<HHII", 40000 + i % 25000, 7, size, 16) for i in range(entries))
    return (
        one[:directory]
        + struct.pack("<H", count + entries)
        + one[directory + 2 : directory + 2 + 12 * count]
        + more
        + bytes(4)
    )


def tiff_jpeg(size: tuple[int, int], jpeg: bytes) -> bytes:
    """A TIFF of one strip that is a JPEG."""
    tags = tiff_tags(*size, t259=(3, [7]), t262=(3, [6]), t273=(4, [16]), t278=(4, [size[1]]), t279=(4, [len(jpeg)]))
    return tiff_of(tags | {258: (3, [8] * 3), 277: (3, [3]), 530: (3, [2, 2])}, tail=jpeg)


# ---- AVIF


def avif_of(*items: tuple[int, int], parts: int = 1, tail: bytes = b"") -> bytes:
    """An AVIF of nothing but the places of its items; `tail` begins at byte 2000, or where they end."""
    places = b"".join(struct.pack(">HHHII", i & 0xFFFF, 0, parts, *item) for i, item in enumerate(items))
    iloc = struct.pack(">BBHBBH", 0, 0, 0, 0x44, 0, len(items)) + places
    meta = bytes(4) + struct.pack(">I4s", 8 + len(iloc), b"iloc") + iloc
    head = struct.pack(">I4s4sI", 16, b"ftyp", b"avif", 0) + struct.pack(">I4s", 8 + len(meta), b"meta") + meta
    room = max(2000 - len(head), 8)
    return head + struct.pack(">I4s", room, b"free").ljust(room, b"\0") + tail


# ---- BMP


def bmp_rle(width: int, height: int, data: bytes, *, four: bool = False) -> bytes:
    bits = 4 if four else 8
    palette = b"".join(bytes([i * 7 % 256, i, 255 - i, 0]) for i in range(1 << bits))
    offset = 54 + len(palette)
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, 2 if four else 1, len(data), 2835, 2835, 1 << bits, 0
    )
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + palette + data


def bmp_raw(width: int, height: int) -> bytes:
    stride = (width * 3 + 3) & ~3
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, stride * height, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + stride * height, 0, 0, 54) + header + bytes(stride * height)


def exif_of_entries(count: int, orientation: int = 6) -> bytes:
    """An EXIF block (without its prefix) of so many entries, the last of which is the orientation."""
    entries = [struct.pack("<HHII", 0x9000 + i % 256, 4, 1, i) for i in range(count - 1)]
    entries.append(struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + b"".join(entries) + bytes(4)


def exif_loop() -> bytes:
    """An EXIF block whose directories point to themselves."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<HHII", 0x8825, 4, 1, 8)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entry + struct.pack("<I", 8)


LARGE = (8000, 6250)  # 50 megapixels

# name -> the file; what takes long to make is made when it is asked for
ATTACKS: dict[str, Callable[[], bytes]] = {
    # JPEG
    "jpeg: fill bytes, 64 KB": lambda: b"\xff\xd8" + b"\xff" * 64_000 + bytes(8),
    "jpeg: fill bytes, 31 MB": lambda: b"\xff\xd8" + b"\xff" * (31 * MB) + bytes(8),
    "jpeg: fill bytes in front of the frame": lambda: jpeg_with(b"\xff" * (31 * MB)),
    "jpeg: ff 00 for ever": lambda: b"\xff\xd8" + b"\xff\0" * (15 * MB),
    "jpeg: ff d0 for ever": lambda: b"\xff\xd8" + b"\xff\xd0" * (15 * MB),
    "jpeg: no marker at all": lambda: b"\xff\xd8\xff\xe0\0\x02" + bytes(31 * MB),
    "jpeg: empty segments": lambda: jpeg_with(jpeg_segment(0xFE) * (7_500_000)),
    "jpeg: empty EXIF segments": lambda: jpeg_with(jpeg_segment(0xE1, b"Exif\0\0") * 3_000_000),
    "jpeg: empty segments behind a scan": lambda: jpeg_of_scans(_noise(), 10)[:-2] + jpeg_segment(0xFE) * 7_500_000,
    "jpeg: empty scans": lambda: jpeg_with(jpeg_segment(0xDA) * 7_500_000),
    "jpeg: restart markers": lambda: encoded(_noise(), "JPEG", restart_marker_blocks=1)[:-2] + b"\xff\xd0" * (15 * MB),
    "jpeg: 100 scans of 50 megapixels": lambda: jpeg_of_scans(Image.new("RGB", LARGE), 100),
    "jpeg: 100 scans behind a false end": lambda: jpeg_hidden_end(Image.new("RGB", LARGE), 100),
    "jpeg: CMYK with EXIF of many entries": lambda: jpeg_with(
        jpeg_segment(0xE1, b"Exif\0\0" + exif_of_entries(5000)) * 500, "CMYK"
    ),
    "jpeg: CMYK with empty segments": lambda: jpeg_with(jpeg_segment(0xED) * 7_500_000, "CMYK"),
    "jpeg: EXIF that points to itself": lambda: jpeg_with(jpeg_segment(0xE1, b"Exif\0\0" + exif_loop())),
    "png: empty chunks": lambda: png_with(chunk(b"teSt") * 2_600_000),
    "png: empty chunks behind the pixels": lambda: png_with(chunk(b"teSt") * 2_600_000, at=-12),
    "png: empty IDAT chunks": lambda: png_with(chunk(b"IDAT") * 2_600_000),
    "png: IDAT chunks of one byte": lambda: png_of(
        2000,
        1000,
        [bytes([byte]) for byte in zlib.compress(_noise(2003, 1000).tobytes()[: 1000 * 6001], 0)[:2_300_000]],
    ),
    "png: text of 64 MB in 64 chunks": lambda: png_with(*[chunk(b"zTXt", b"k\0\0" + deflated(MB))] * 64),
    "png: text of 16 GB": lambda: png_with(*[chunk(b"zTXt", b"k\0\0" + deflated(256 * MB))] * 64),
    "png: international text of 512 MB": lambda: png_with(*[chunk(b"iTXt", b"k\0\1\0\0\0" + deflated(256 * MB))] * 2),
    "png: profile of 256 MB": lambda: png_with(chunk(b"iCCP", b"k\0\0" + deflated(256 * MB))),
    "png: EXIF profile in text, 64 MB": lambda: png_with(
        chunk(b"zTXt", b"Raw profile type exif\0\0" + deflated(64 * MB, b"\nexif\n 9\n" + b"4" * MB))
    ),
    "png: EXIF of many entries": lambda: png_with(*[chunk(b"eXIf", exif_of_entries(65535))] * 30),
    "png: pixels that inflate to 300 MB": lambda: png_of(64, 48, [deflated(300 * MB)]),
    "png: one row": lambda: encoded(Image.new("L", (50_000_000, 1)), "PNG"),
    "png: one column": lambda: encoded(Image.new("L", (1, 50_000_000)), "PNG"),
    "png: a row of a million pixels": lambda: encoded(_noise(1_000_000, 10), "PNG", compress_level=0),
    "gif: comments of one byte": lambda: gif_with(b"!\xfe" + b"\1a" * (10 * MB) + b"\0"),
    "gif: empty comments": lambda: gif_with(b"!\xfe\0" * (10 * MB)),
    "gif: control blocks": lambda: gif_with(b"!\xf9\4\0\0\0\0\0" * 3_900_000),
    "gif: application blocks": lambda: gif_with(b"!\xff\x0bNETSCAPE2.0" + b"\3\1\0\0" * (7 * MB) + b"\0"),
    "gif: semicolons": lambda: gif_with(b"\0" * (31 * MB)),
    "gif: frames": lambda: gif_with(b"")[:-1] + b",\0\0\0\0\1\0\1\0\0\2\2\x44\1\0" * (2 * MB),
    "gif: a tiny image on a canvas of 50 megapixels": lambda: gif_with(b"", canvas=LARGE),
    "webp: chunks": lambda: webp_with(after=[(b"abcd", b"")] * 3_900_000),
    "webp: chunks in front of the pixels": lambda: webp_with(*[(b"abcd", b"")] * 3_900_000),
    "webp: EXIF chunks": lambda: webp_with(after=[(b"EXIF", b"II")] * 3_000_000, flags=8),
    "webp: EXIF of many entries": lambda: webp_with(after=[(b"EXIF", exif_of_entries(65535))] * 30, flags=8),
    "webp: frames": lambda: webp_frames(_noise(), 12_000),
    "webp: a large frame on a small canvas": lambda: webp_frames(
        Image.new("RGB", (16_000, 16_000)), lossless=True, method=0, quality=0
    ),
    "webp: a frame of 50 megapixels": lambda: webp_frames(
        Image.new("RGB", LARGE), canvas=LARGE, lossless=True, method=0, quality=0
    ),
    "webp: 50 megapixels in a few bytes": lambda: encoded(
        Image.new("RGB", LARGE), "WEBP", lossless=True, method=0, quality=0
    ),
    "tiff: strips": lambda: tiff_strips(3_900_000),
    "tiff: strips, LZW": lambda: tiff_strips(3_900_000, 5),
    "tiff: strips, big-endian": lambda: tiff_strips(3_900_000, order=">"),
    "tiff: strips, BigTIFF": lambda: tiff_strips(3_900_000, big=True),
    "tiff: as many strips as rows": lambda: tiff_of(
        tiff_tags(1, 3_000_000, t273=(4, [16] * 3_000_000), t278=(4, [1]), t279=(4, [1] * 3_000_000)), tail=bytes(4096)
    ),
    "tiff: tiles of one pixel": lambda: tiff_tiles(2_000_000, 1, pixels=1400),
    "tiff: tiles of one pixel, deflate": lambda: tiff_tiles(2_000_000, 1, 8, pixels=1400),
    "tiff: tiles": lambda: tiff_tiles(3_900_000),
    "tiff: bits for millions of samples": lambda: tiff_of(
        tiff_tags(64, 64, t258=(3, [8] * 15_000_000), t273=(4, [16]), t279=(4, [4096]), t278=(4, [64])),
        tail=bytes(4096),
    ),
    "tiff: colour map of millions": lambda: tiff_of(
        tiff_tags(64, 64, t262=(3, [3]), t320=(3, [8] * 15_000_000), t273=(4, [16]), t279=(4, [4096]), t278=(4, [64])),
        tail=bytes(4096),
    ),
    "tiff: 65,000 tags": lambda: tiff_same_data(65_000, 4096),
    "tiff: tags that share 30 MB": lambda: tiff_same_data(4_000, 30 * MB),
    "tiff: directories in a circle": lambda: tiff_of(
        tiff_tags(64, 64, t273=(4, [16]), t279=(4, [4096]), t278=(4, [64]), t330=(4, [16 + 4096] * 1000)),
        tail=bytes(4096),
        following=16 + 4096,
    ),
    "tiff: EXIF of many entries": lambda: tiff_of(
        tiff_tags(
            64, 64, t273=(4, [16]), t279=(4, [4096]), t278=(4, [64]), t34665=(4, [24 + 4096]), t34853=(4, [24 + 4096])
        ),
        tail=bytes(4096) + exif_of_entries(65535),
    ),
    "tiff: strips that say they are larger": lambda: tiff_of(
        tiff_tags(64, 64, t259=(3, [8]), t273=(4, [16]), t278=(4, [64]), t279=(4, [2_000_000_000])),
        tail=zlib.compress(bytes(4096)),
    ),
    "tiff: JPEG of 100 scans of 50 megapixels": lambda: tiff_jpeg(LARGE, jpeg_of_scans(Image.new("RGB", LARGE), 100)),
    "tiff: one row": lambda: tiff_of(
        tiff_tags(30_000_000, 1, t273=(4, [16]), t279=(4, [30_000_000]), t278=(4, [1])), tail=bytes(30_000_000)
    ),
    "avif: places": lambda: avif_of(*[(2000, 30_000_000)] * 4000, tail=b"\x7a\0" * 14_000_000),
    "avif: frames": lambda: avif_of(
        (2000, 30_000_000), tail=b"\x0a\x08\x18\x15\x6e\x40\0\0\0\0" + b"\x32\0" * 14_000_000
    ),
    "avif: boxes": lambda: avif_of(tail=struct.pack(">I4s", 8, b"free") * 3_900_000),
    "avif: a large image in a small container": lambda: encoded(
        Image.new("RGB", (16_000, 4_000)), "AVIF", speed=10, quality=1
    ).replace(struct.pack(">II", 16_000, 4_000), struct.pack(">II", 16, 16)),
    "bmp: runs of one pixel": lambda: bmp_rle(*LARGE, b"\1\7" * (15 * MB)),
    "bmp: empty lines": lambda: bmp_rle(*LARGE, b"\0\0" * (15 * MB)),
    "bmp: RLE4 of 50 megapixels": lambda: bmp_rle(*LARGE, b"\xff\x12" * (50_000_000 // 255 + 1), four=True),
    "bmp: moves of nothing": lambda: bmp_rle(*LARGE, b"\0\2\0\0" * (7 * MB)),
    "bmp: one row": lambda: bmp_raw(10_000_000, 1),
    "bmp: a row of a million pixels": lambda: bmp_raw(1_000_000, 10),
}
