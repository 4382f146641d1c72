"""`python -m loadtests.fuzz_decode --minutes 5`: mutate pictures of every format until a decoder breaks its promises.

What is promised of `service.vision.decode` for any bytes: pixels, or a `RequestError`; never another exception, never a
crash, and within a second. atheris (libFuzzer) follows the branches of our code and of Pillow's Python; install it with
`pip install atheris`. What it finds lies in `--out`, and `--replay FILE` shows it again. Not part of CI.
"""

import gc
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import click
from PIL import Image

from loadtests.album import SAMPLES, jpeg
from service.errors import RequestError
from service.vision.decode import Picture, decode

MAX_PIXELS = 1_000_000
SECONDS = 1.0  # that one file may take
_FORMATS: dict[str, tuple[str, dict[str, object]]] = {
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
}
_MODES = {"png": ("L", "1", "P", "RGBA", "LA", "I;16"), "gif": ("P",), "jpeg": ("L", "CMYK"), "tiff": ("P", "CMYK")}


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yield small real photos in every format and mode that is read, with and without EXIF, by a name for each."""
    for sample in SAMPLES[:2]:
        picture = Image.open(io.BytesIO(jpeg(sample, (48, 32)).data))
        exif = Image.Exif()
        exif[0x0112] = 6
        for name, (form, options) in _FORMATS.items():
            yield f"{sample}-{name}", _encoded(picture, form, options)
            if form not in {"BMP", "GIF"}:
                yield f"{sample}-{name}-turned", _encoded(picture, form, options | {"exif": exif})
            for mode in _MODES.get(name, ()):
                yield f"{sample}-{name}-{mode.replace(';', '')}", _encoded(_as(picture, mode), form, options)
    frames = [jpeg(sample, (48, 32)).data for sample in SAMPLES]
    first, *rest = (Image.open(io.BytesIO(frame)) for frame in frames)
    for form in ("GIF", "WEBP", "PNG"):
        yield f"moving-{form}", _encoded(first, form, {"save_all": True, "append_images": rest})


def check(data: bytes) -> None:
    """Decode, and raise `AssertionError` or whatever the decoder wrongly let through."""
    start = time.perf_counter()
    try:
        picture = Picture(data, MAX_PIXELS)
        pixels = decode(data, max_pixels=MAX_PIXELS)
        assert pixels.shape == (picture.height, picture.width, 3), (pixels.shape, picture.width, picture.height)  # noqa: S101
        decode(data, max_pixels=MAX_PIXELS, at_least=(1, 1))
    except RequestError:
        pass
    seconds = time.perf_counter() - start
    assert seconds < SECONDS, f"{len(data)} bytes took {seconds:.1f} s"  # noqa: S101


@click.command()
@click.option("--minutes", default=5.0, show_default=True, help="How long to look.")
@click.option("--out", type=click.Path(path_type=Path), help="Where findings are kept. [default: a new folder]")
@click.option("--replay", type=click.Path(path_type=Path, exists=True), help="Check one file and say what happens.")
@click.option("--worker", is_flag=True, hidden=True)
def main(minutes: float, out: Path | None, replay: Path | None, worker: bool) -> None:
    """Fuzz the decoders. The exit code is 1 where something was found."""
    if replay is not None:
        check(replay.read_bytes())
        click.echo(f"{replay}: as promised")
        return
    try:
        import atheris  # type: ignore[import-untyped]  # noqa: PLC0415 - optional
    except ImportError:
        raise click.ClickException("atheris is not installed: pip install atheris (Linux and macOS)") from None
    out = out or Path(tempfile.mkdtemp(prefix="fuzz-decode-"))
    if not worker:
        sys.exit(_supervise(minutes, out))
    Image.init()  # loads every format's plugin
    for function in [thing for thing in gc.get_objects() if isinstance(thing, FunctionType)]:
        if (function.__module__ or "").startswith(("PIL.", "service.vision.")):
            atheris.instrument_func(function)
    options = [f"-max_total_time={int(60 * minutes)}", f"-artifact_prefix={out}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(out / "corpus"), *options, "-max_len=16384", "-rss_limit_mb=4096"], check)
    atheris.Fuzz()


def _supervise(minutes: float, out: Path) -> int:
    """Run the fuzzer in a process of its own: libFuzzer ends its process, whatever happens."""
    corpus = out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for name, data in seeds():
        (corpus / name).write_bytes(data)
    click.echo(f"{len(list(corpus.iterdir()))} seeds; findings go to {out}")
    command = [sys.executable, "-m", "loadtests.fuzz_decode", "--worker", "--minutes", str(minutes), "--out", str(out)]
    code = subprocess.run(command, check=False).returncode  # noqa: S603 - ourselves
    found = [path for path in out.iterdir() if path.is_file()]
    for path in found:
        click.echo(f"found: {path} (python -m loadtests.fuzz_decode --replay {path})")
    return int(code != 0 or bool(found))


def _as(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "P":
        return picture.quantize(32)
    return picture.convert("L").convert("I;16") if mode == "I;16" else picture.convert(mode)


def _encoded(picture: Image.Image, form: str, options: dict[str, object]) -> bytes:
    data = io.BytesIO()
    picture.save(data, form, **options)
    return data.getvalue()


if __name__ == "__main__":
    main()
