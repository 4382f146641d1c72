"""JPEGs that are decoded where the model runs: who decodes them, and the answers beside those of the CPU's way.

The device is the host's memory; lanes, sizes, padding and nvImageCodec are those of a GPU. Functions without `test_`
run in a process in which nvImageCodec is installed.
"""

import asyncio
import io
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from service.engine.job import Job
from service.engine.jpegs import JpegDecoder
from service.engine.lanes import Lanes
from service.engine.profile import JpegRow
from service.engine.providers import CUDA
from service.engine.stop import Stop
from service.engine.workers import Workers
from service.models import jpegs, model, on_gpu
from service.models.inputs import EncodedImage
from service.models.model import LoadedModel
from service.predictor import deadline_after
from service.settings import Settings
from service.tasks import options_of
from service.telemetry.metrics import Metrics
from tests.service.engine.host import Host
from tests.service.fronts.side import outcomes, sides, submit

SETTINGS = Settings(max_batch=4, device="cpu")
DAMAGED = "half a jpeg with an end"
"""Of what is damaged within, each decoder makes what it can: that of the CPU refuses it, nvImageCodec does not."""


def on_the_host(used: bool = True):
    """Let models be loaded as on a GPU, in the host's memory, and decode JPEGs there or not, whatever is measured."""

    def measured(*arguments):
        row = jpegs.measure_jpegs(*arguments)
        return row and JpegRow(row.version, row.gpu_s, row.cpu_s, row.golden, used and row.golden)

    stack = [
        patch.object(model, "choose", lambda _: CUDA),
        patch.object(on_gpu, "Lanes", partial(Lanes, make_stream=Host)),
        patch.object(on_gpu, "measure_jpegs", measured),
        patch.object(on_gpu, "best_tuning", lambda _, __, first, ___: first),  # there is none of a host
        patch.object(on_gpu, "best_lanes", lambda *_: 1),
        patch.object(on_gpu, "remember", lambda *_: None),
        patch.object(on_gpu, "recall", lambda *_: None),
    ]
    for one in stack:
        one.start()


def load(folder: Path, workers: Workers) -> LoadedModel:
    return LoadedModel(folder, Stop(), SETTINGS, workers, Metrics())


def answers(folder: Path, files: list[bytes], used: bool) -> tuple[JpegRow, int, list[list[tuple[str, float]] | str]]:
    """The measured row, how many files a decoder got, and for each file the best classes or the reason of an error."""
    on_the_host(used)
    decoded = []
    fill = JpegDecoder.fill
    patch.object(JpegDecoder, "fill", lambda self, some: (decoded.append(len(some)), fill(self, some))[1]).start()
    workers = Workers(2)
    loaded = load(folder, workers)
    decoded.clear()

    async def ask() -> list:
        jobs = []
        for file in files:
            image = EncodedImage(file, loaded.card, options_of("classify", {}), SETTINGS)
            jobs.append(Job(image, deadline_after(20_000)))
            loaded.batcher.submit(jobs[-1])
        return await outcomes(jobs)

    found = asyncio.run(ask())
    workers.close()
    return loaded.profile.jpegs, sum(decoded), [in_short(one) for one in found]


def in_short(outcome) -> list[tuple[str, float]] | str:
    if isinstance(outcome, Exception):
        return str(outcome.reason)
    return [(one.label, one.score) for one in outcome.predictions[:3]]


def jpeg(png: bytes, **options) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(out, "JPEG", **options)
    return out.getvalue()


@pytest.fixture
def files(photo) -> dict[str, bytes]:
    """Files by what they are."""
    coffee, cat = photo("coffee"), photo("chelsea")
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = jpeg(coffee, quality=90)
    return {
        "jpeg": plain,
        "png": cat,
        "another jpeg": jpeg(cat, quality=80),
        "turned": jpeg(cat, exif=exif),
        "progressive": jpeg(coffee, progressive=True),
        "half a jpeg": plain[: len(plain) // 2],
        DAMAGED: plain[: len(plain) // 2] + b"\xff\xd9",
        "larger than a row": jpeg(coffee, quality=100, subsampling=0),
        "rubbish": b"rubbish",
    }


def test_answers_are_those_of_the_cpus_way(with_nvimgcodec, models, files):
    folder = models / "mobilenet_v2" / "1"
    assert len(files["larger than a row"]) > 224 * 224 * 3 > len(files["jpeg"])
    many = [*files.values()] * 3
    row, count, found = with_nvimgcodec(answers, folder, many, True)
    assert row.version
    assert row.golden
    assert row.used
    assert row.gpu_s > 0
    assert row.cpu_s > 0
    expected_row, none, expected = with_nvimgcodec(answers, folder, many, False)
    assert none == 0
    assert not expected_row.used
    assert count > 3
    assert_alike(found, expected, files)
    refused = {name for name, one in zip(files, expected, strict=False) if isinstance(one, str)}
    assert refused == {"half a jpeg", DAMAGED, "rubbish"}


def assert_alike(found: list, expected: list, files: dict[str, bytes]) -> None:
    """Check the answers to three times all files."""
    for name, one, other in zip([*files] * 3, found, expected, strict=True):
        if isinstance(other, str) and name != DAMAGED:
            assert one == other, name
        elif name != DAMAGED:
            assert dict(one) == pytest.approx(dict(other), abs=0.02), name


def through_fronts(store: Path, name: str, photos: list[bytes], used: bool) -> tuple[int, list]:
    on_the_host(used)
    fills = []
    fill = JpegDecoder.fill
    patch.object(JpegDecoder, "fill", lambda self, some: (fills.append(len(some)), fill(self, some))[1]).start()
    with sides(store, 2, max_batch=4, device="cpu") as (_, fronts):
        fills.clear()

        async def ask() -> list:
            return await outcomes([submit(fronts[i % 2], each, name=name) for i, each in enumerate(photos)])

        found = asyncio.run(ask())
    return sum(fills), [in_short(one) for one in found]


def test_fronts_hand_the_files_over(with_nvimgcodec, models, tmp_path, files):
    (tmp_path / "mobilenet_v2").symlink_to(models / "mobilenet_v2")
    many = [*files.values()] * 3
    count, found = with_nvimgcodec(through_fronts, tmp_path, "mobilenet_v2", many, True)
    none, expected = with_nvimgcodec(through_fronts, tmp_path, "mobilenet_v2", many, False)
    assert none == 0 < count
    assert_alike(found, expected, files)


def black(folder: Path) -> JpegRow:
    on_the_host()
    patch.object(JpegDecoder, "fill", lambda self, some: [self._stream.copy_in(at, BLACK) for _, at in some]).start()
    workers = Workers(1)
    loaded = load(folder, workers)
    workers.close()
    return loaded.profile.jpegs


BLACK = np.zeros((224, 224, 3), np.uint8)


def test_a_decoder_whose_answers_are_wrong_is_not_used(with_nvimgcodec, models):
    row = with_nvimgcodec(black, models / "mobilenet_v2" / "1")
    assert not row.golden
    assert not row.used


def without_memory(folder: Path) -> tuple[JpegRow | None, int]:
    on_the_host()

    def fill(*_: object) -> None:
        raise MemoryError

    patch.object(JpegDecoder, "fill", fill).start()
    workers = Workers(1)
    loaded = load(folder, workers)
    workers.close()
    return loaded.profile.jpegs, loaded.profile.max_batch


def test_a_model_is_served_where_there_is_no_memory_to_measure_jpegs(with_nvimgcodec, models):
    assert with_nvimgcodec(without_memory, models / "mobilenet_v2" / "1") == (None, 4)


@pytest.mark.parametrize(
    ("settings", "gpus", "cores"),
    [({}, 1, 16), ({}, 4, 16), ({"workers": 2}, 1, 16), ({"workers": 8}, 4, 4), ({"engines": 4}, 1, 4)],
    ids=str,
)
def test_gpus_share_the_cores_that_decode(monkeypatch, settings, gpus, cores):
    monkeypatch.setattr(jpegs, "gpu_count", lambda: gpus)
    monkeypatch.setattr(jpegs, "usable_cores", lambda: 16)
    assert jpegs.decoding_cores(Settings(**settings)) == cores


def with_exact_pixels(folder: Path) -> JpegRow | None:
    on_the_host()
    workers = Workers(1)
    loaded = LoadedModel(folder, Stop(), Settings(max_batch=4, device="cpu", pixels="exact"), workers, Metrics())
    workers.close()
    return loaded.profile.jpegs


def test_exact_pixels_leave_no_choice(with_nvimgcodec, models):
    assert with_nvimgcodec(with_exact_pixels, models / "mobilenet_v2" / "1") is None
