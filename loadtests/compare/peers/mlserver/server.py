"""MLServer with adaptive batching: a custom runtime, started by `mlserver start` on the settings beside it."""

import json

from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from loadtests.compare.work import Work


class Predict(MLModel):
    async def load(self) -> bool:
        self.work = Work()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        photos = Base64Codec.decode_input(payload.inputs[0])
        answers = self.work.answer([self.work.prepare(photo) for photo in photos])
        texts = [json.dumps(answer) for answer in answers]
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("answer", texts)])
