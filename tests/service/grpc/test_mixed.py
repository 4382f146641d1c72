"""Requests over gRPC and over HTTP are batched together."""

import concurrent.futures
import threading

import numpy as np

X = np.random.default_rng(1).random((1, 400, 8), np.float32)


def test_requests_over_http_and_grpc_share_a_batch(oip, bare, batches, run_alone):
    """Each of the two has one request under way at most: a run of two requests has one of each protocol."""
    stop = threading.Event()
    big = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3, 448, 448]}]}
    big |= {"model_name": "style", "raw_input_contents": [bytes(4 * 3 * 448 * 448)]}
    tensor = {"name": "x", "datatype": "FP32", "shape": X.shape}

    def keep_busy() -> None:
        """Another model's requests, for whose runs both have to wait."""
        while not stop.is_set():
            bare("ModelInfer", big)

    def by_grpc() -> np.ndarray:
        request = {"model_name": "gru", "inputs": [tensor], "raw_input_contents": [X.tobytes()]}
        return np.frombuffer(bare("ModelInfer", request).raw_output_contents[0], np.float32)

    def by_http() -> np.ndarray:
        answer = oip.client.post("/v2/models/gru/infer", json={"inputs": [tensor | {"data": X.ravel().tolist()}]})
        return np.array(answer.json()["outputs"][0]["data"], np.float32)

    before = batches("gru")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in range(6):
            pool.submit(keep_busy)
        try:
            senders = [pool.submit(lambda ask=ask: [ask() for _ in range(30)]) for ask in (by_grpc, by_http)]
            answers = [answer for sender in senders for answer in sender.result(60)]
        finally:
            stop.set()
    runs, rows = (after - then for after, then in zip(batches("gru"), before, strict=True))
    assert rows == 60
    assert runs < rows, "none of them shared a run"
    print(f"{rows} rows in {runs} runs: {rows / runs:.2f} in a batch")
    for answer in answers:
        np.testing.assert_allclose(answer, run_alone("gru", X)["logits"].ravel(), rtol=1e-3, atol=1e-4)
