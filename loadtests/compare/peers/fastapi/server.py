"""FastAPI: an endpoint that is not `async` runs in the thread pool, where all share one session. No batching."""

from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, File

from loadtests.compare.work import PORT, Work

app = FastAPI()
work = Work()


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/predict")
def predict(image: Annotated[bytes, File()]) -> dict[str, Any]:
    return work.answer([work.prepare(image)])[0]


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
