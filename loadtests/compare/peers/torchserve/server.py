"""TorchServe with batching: archives the handler, writes the configuration, and becomes `torchserve`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

from loadtests.compare.work import MAX_BATCH, MAX_WAIT, PORT, THREADS

BIN = Path(sys.executable).parent
WORKERS = 1 if THREADS else os.cpu_count()  # its default where nothing is pinned: one for each core
MODEL = {
    "defaultVersion": True,
    "marName": "predict.mar",
    "minWorkers": WORKERS,
    "maxWorkers": WORKERS,
    "batchSize": MAX_BATCH,
    "maxBatchDelay": int(MAX_WAIT * 1000),
    "responseTimeout": 60,
}

if __name__ == "__main__":
    store = Path(mkdtemp(prefix="torchserve-"))
    (store / "config.properties").write_text(
        f"inference_address=http://127.0.0.1:{PORT}\n"
        f"management_address=http://127.0.0.1:{PORT + 1}\n"
        f"metrics_address=http://127.0.0.1:{PORT + 2}\n"
        f"grpc_inference_port={PORT + 3}\ngrpc_management_port={PORT + 4}\n"
        "grpc_inference_address=127.0.0.1\ngrpc_management_address=127.0.0.1\n"
        f"model_store={store}\nload_models=predict.mar\n"
        f"models={json.dumps({'predict': {'1.0': MODEL}})}\n"
        "disable_token_authorization=true\n"
    )
    archive = ["--model-name=predict", "--version=1.0", "--handler=handler.py", f"--export-path={store}"]
    subprocess.run([BIN / "torch-model-archiver", *archive], check=True)  # noqa: S603
    os.environ["LOG_LOCATION"] = os.environ["METRICS_LOCATION"] = str(store)
    serve = ["torchserve", "--start", "--foreground", "--ncs", "--ts-config", str(store / "config.properties")]
    os.execv(BIN / "torchserve", [*serve, "--log-config", "log4j2.xml", "--disable-token-auth"])  # noqa: S606
