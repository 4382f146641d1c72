"""KServe's own client. Its distribution asks for older protobuf and psutil than ours: installed with --no-deps."""

import json

import grpc
import numpy as np
import pytest

kserve = pytest.importorskip("kserve")


@pytest.fixture
def ask(oip, together):
    """Call a method of a client."""

    def run(method: str, *arguments, **named):
        async def call():
            async with kserve.InferenceGRPCClient(oip.grpc, timeout=30) as client:
                return await getattr(client, method)(*arguments, **named)

        return together(call())

    return run


def test_kserve_client_reads_health(ask):
    assert ask("is_server_live")
    assert ask("is_server_ready")
    assert ask("is_model_ready", "gru")


@pytest.mark.parametrize("binary", [True, False])
def test_kserve_client_sends_and_receives_tensors(ask, run_alone, binary):
    x = np.random.default_rng(1).random((2, 5, 8), np.float32)
    given = kserve.InferInput("x", list(x.shape), "FP32")
    given.set_data_from_numpy(x, binary_data=binary)
    request = kserve.InferRequest(model_name="gru", infer_inputs=[given], request_id="seven")
    answer = ask("infer", request)
    assert (answer.id, answer.model_name) == ("seven", "gru")
    for name, want in run_alone("gru", x).items():
        got = answer.get_output_by_name(name).as_numpy()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_kserve_client_sends_an_image(ask, coffee):
    given = kserve.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([coffee], object), binary_data=True)
    request = kserve.InferRequest(model_name="yolov4_tiny", infer_inputs=[given], parameters={"score_threshold": "0.5"})
    (result,) = ask("infer", request).get_output_by_name("result").as_numpy().ravel()
    assert [found["label"] for found in json.loads(result)["predictions"]] == ["cup"]


def test_kserve_client_gets_an_error(ask):
    given = kserve.InferInput("x", [1, 2, 9], "FP32")
    given.set_data_from_numpy(np.zeros((1, 2, 9), np.float32), binary_data=False)
    with pytest.raises(grpc.RpcError) as error:
        ask("infer", kserve.InferRequest(model_name="gru", infer_inputs=[given]))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected [-1, -1, 8]" in error.value.details()
