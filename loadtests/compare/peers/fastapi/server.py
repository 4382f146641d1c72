"""FastAPI: an endpoint that is not `async` runs in the thread pool. No batching."""

from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, File

from loadtests.compare.work import PORT, Classifier

app = FastAPI()
classifier = Classifier()


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/classify")
def classify(image: Annotated[bytes, File()]) -> dict[str, Any]:
    return classifier.classify([classifier.prepare(image)])[0]


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
