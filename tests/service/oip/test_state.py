"""A recurrent network over /v2: the client keeps its state, and requests that are batched do not mix."""

import asyncio

import httpx
import numpy as np
import pytest

TEXTS = [b"To be, or not to be", b"Now is the winter o", b"If music be the foo", b"Once more unto the "]
STATE = (2, 208)


@pytest.fixture
def server(course):
    return course


def body(texts: list[bytes], states: np.ndarray) -> dict:
    codes = [list(text) for text in texts]
    return {
        "inputs": [
            {"name": "characters", "datatype": "UINT8", "shape": [len(codes), len(codes[0])], "data": codes},
            {"name": "state", "datatype": "FP32", "shape": list(states.shape), "data": states.ravel().tolist()},
        ]
    }


def read(response: httpx.Response) -> dict[str, np.ndarray]:
    assert response.status_code == 200, response.text
    outputs = response.json()["outputs"]
    return {output["name"]: np.reshape(output["data"], output["shape"]) for output in outputs}


def ask(server, texts, states) -> dict[str, np.ndarray]:
    return read(server.client.post("/v2/models/char_lstm/infer", json=body(texts, states)))


def test_rows_together_are_answered_as_alone_state_included(server):
    states = np.random.default_rng(0).uniform(-1, 1, (len(TEXTS), *STATE)).astype(np.float32)
    together = ask(server, TEXTS, states)
    assert together["probabilities"].shape == (len(TEXTS), 128)
    for row, text in enumerate(TEXTS):
        alone = ask(server, [text], states[row : row + 1])
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][row], value[0], atol=1e-5)


def test_a_client_that_keeps_the_state_reads_on(server):
    zeros = np.zeros((1, *STATE), np.float32)
    whole = ask(server, [TEXTS[0]], zeros)
    state = zeros
    for code in TEXTS[0]:
        answer = ask(server, [bytes([code])], state)
        state = answer["next_state"]
    np.testing.assert_allclose(answer["probabilities"], whole["probabilities"], atol=1e-4)


def test_requests_at_once_are_answered_each_by_its_own_state(server):
    states = np.random.default_rng(1).uniform(-1, 1, (40, 1, *STATE)).astype(np.float32)
    texts = [TEXTS[number % len(TEXTS)] for number in range(len(states))]

    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            asked = zip(texts, states, strict=True)
            return await asyncio.gather(
                *(client.post("/v2/models/char_lstm/infer", json=body([text], state)) for text, state in asked)
            )

    for text, state, response in zip(texts, states, asyncio.run(all_at_once()), strict=True):
        alone = ask(server, [text], state)
        for name, value in read(response).items():
            np.testing.assert_allclose(value, alone[name], atol=1e-5)
    metrics = server.client.get("/metrics").text
    sizes = [line for line in metrics.splitlines() if line.startswith('zooserve_batch_size_sum{model="char_lstm"')]
    runs = [line for line in metrics.splitlines() if line.startswith('zooserve_batch_size_count{model="char_lstm"')]
    assert float(sizes[0].split()[-1]) > float(runs[0].split()[-1]), "some requests shared a run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given["inputs"].pop(), "The input `state` is missing"),
        (
            lambda given: given["inputs"][1].update(shape=[1, 2, 207]),
            "has the shape [1, 2, 207]; expected [-1, 2, 208]",
        ),
        (lambda given: given["inputs"][0].update(shape=[1, 0], data=[]), "which has no elements"),
        (lambda given: given["inputs"][0].update(data=[300] * 19), "UINT8"),
    ],
)
def test_bad_requests_are_refused_and_harm_nothing(server, change, message):
    given = body([TEXTS[0]], np.zeros((1, *STATE), np.float32))
    change(given)
    response = server.client.post("/v2/models/char_lstm/infer", json=given)
    assert response.status_code == 400
    assert message in response.json()["error"]
    ask(server, [TEXTS[0]], np.zeros((1, *STATE), np.float32))
