"""32 clients at once, three tasks, one request in twenty invalid.

Every answer is the predictor's own, nothing hangs, nothing leaks. `MIXED_LOAD_SECONDS=60` runs the full minute.
"""

import asyncio
import io
import json
import os
import random
import time

import httpx
import msgspec
import pytest
from PIL import Image

from service.runtime import Runtime
from service.settings import Settings

SECONDS = float(os.environ.get("MIXED_LOAD_SECONDS", "8"))
CLIENTS = 32
MODELS = ["mobilenet_v2", "efficientnet_lite0", "yolov4_tiny", "deeplabv3_mobilenet_v2"]
PHOTOS = ["coffee", "chelsea", "astronaut", "rocket"]
INVALID = {400: b"", 415: b"this is not an image" * 100}


@pytest.fixture(scope="module")
def jpegs(photo):
    def jpeg(name):
        out = io.BytesIO()
        Image.open(io.BytesIO(photo(name))).convert("RGB").save(out, "JPEG", quality=92)
        return out.getvalue()

    return {name: jpeg(name) for name in PHOTOS}


@pytest.fixture(scope="module")
def expected(models, jpegs):
    """The predictor's own answers, without any server."""
    runtime = Runtime(Settings(models=str(models), load=",".join(MODELS), max_batch=1, device="cpu"))
    runtime.repository.load()
    assert runtime.repository.ready
    answers = {}
    for name in MODELS:
        entry = runtime.repository.entries[name]
        for photo, data in jpegs.items():
            answers[name, photo] = msgspec.to_builtins(runtime.predictor.predict(data, entry.model, {}))
    runtime.stop()
    return {key: (answer["task"], answer) for key, answer in answers.items()}


def same(one, other) -> bool:
    """Equal, but for the last digits of numbers: another batch size adds in another order."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == pytest.approx(other, abs=0.02, rel=1e-4) if isinstance(one, float) else one == other


async def client(seed: int, url: str, end: float, jpegs, expected) -> tuple[int, list[str]]:
    chance = random.Random(seed)
    sent, wrong = 0, []
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        while time.monotonic() < end:
            (model, photo), (task, answer) = chance.choice(list(expected.items()))
            if chance.random() < 0.05:
                status, body = chance.choice(list(INVALID.items()))
                response = await http.post(f"/v1/{task}", params={"model": model}, content=body)
                right = response.status_code == status
            else:
                response = await http.post(f"/v1/{task}", params={"model": model}, content=jpegs[photo])
                right = response.status_code == 200 and same(answer, json.loads(response.content))
            sent += 1
            if not right:
                wrong.append(f"{model} {photo}: {response.status_code} {response.text[:300]}")
    return sent, wrong


def load(server, jpegs, expected, seconds: float) -> tuple[int, list[str]]:
    async def main():
        end = time.monotonic() + seconds
        return await asyncio.gather(*(client(seed, server.url, end, jpegs, expected) for seed in range(CLIENTS)))

    counts = asyncio.run(main())
    return sum(sent for sent, _ in counts), [line for _, lines in counts for line in lines]


@pytest.mark.timeout(60 + 3 * SECONDS)
def test_mixed_load(server, jpegs, expected):
    _, wrong = load(server, jpegs, expected, 3)  # memory is compared after the pools have filled
    before = server.resident()
    sent, more = load(server, jpegs, expected, SECONDS)
    assert wrong + more == []
    assert sent > CLIENTS
    grown = server.resident() - before
    print(f"{sent} requests in {SECONDS:g} s, memory {before / 1e6:.0f} MB and {grown / 1e6:+.1f} MB")
    assert grown < 0.05 * before + 5e6
