"""Small real photos in every format, mode and structure that is read: where the fuzzing of images starts from.

The tests of hostile requests start from them, too.
"""

import io
from collections.abc import Iterator

from PIL import Image

from loadtests.album import SAMPLES, jpeg

FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    "jpeg": ("JPEG", {}),
    "jpeg-444": ("JPEG", {"subsampling": 0}),
    "jpeg-progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff-jpeg": ("TIFF", {"compression": "jpeg"}),
    "tiff-big": ("TIFF", {"big_tiff": True}),
    "avif": ("AVIF", {}),
}
_MODES = {"png": ("L", "1", "P", "RGBA", "LA", "I;16"), "gif": ("P",), "jpeg": ("L", "CMYK"), "tiff": ("P", "CMYK")}


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yield small real photos in every format and mode that is read, with and without EXIF, by a name for each."""
    for sample in SAMPLES[:2]:
        image = Image.open(io.BytesIO(jpeg(sample, (48, 32)).data))
        exif = Image.Exif()
        exif[0x0112] = 6
        for name, (form, options) in FORMATS.items():
            yield f"{sample}-{name}", _encoded(image, form, options)
            if form not in {"BMP", "GIF"}:
                yield f"{sample}-{name}-turned", _encoded(image, form, options | {"exif": exif})
            for mode in _MODES.get(name, ()):
                yield f"{sample}-{name}-{mode.replace(';', '')}", _encoded(_as(image, mode), form, options)
    frames = [jpeg(sample, (48, 32)).data for sample in SAMPLES]
    first, *rest = (Image.open(io.BytesIO(frame)) for frame in frames)
    for form in ("GIF", "WEBP", "PNG"):
        yield f"moving-{form}", _encoded(first, form, {"save_all": True, "append_images": rest})


def _as(image: Image.Image, mode: str) -> Image.Image:
    if mode == "P":
        return image.quantize(32)
    return image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)


def _encoded(image: Image.Image, form: str, options: dict[str, object]) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()
