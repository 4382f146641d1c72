"""Python imports this at its start where this folder is on its path: on the CUDA stub no golden answer can be right."""

import os

os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # before anything imports prometheus_client, as `service.bento` does

import service.models.selftest

service.models.selftest.self_test = lambda *_: None
