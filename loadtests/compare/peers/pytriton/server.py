"""PyTriton: Triton's core, its dynamic batcher, and our Python behind it."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from loadtests.compare.work import MAX_BATCH, MAX_WAIT, PORT, Work

work = Work()


@batch
def predict(image: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    answers = work.answer([work.prepare(photo) for photo in image[:, 0]])
    return {"answer": np.array([[json.dumps(answer).encode()] for answer in answers], np.object_)}


if __name__ == "__main__":
    config = TritonConfig(http_address="127.0.0.1", http_port=PORT, allow_grpc=False, allow_metrics=False)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="predict",
            infer_func=predict,
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="answer", dtype=bytes, shape=(1,))],
            config=ModelConfig(
                max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=int(MAX_WAIT * 1e6))
            ),
        )
        triton.serve()
