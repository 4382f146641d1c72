"""Cards, labels, sources and the store of models.

The packages that import libraries with usage statistics import this one first, so that none is sent: those libraries
look at their variables once, when they are imported. A variable that is set already stays.
"""

import os

for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):  # ONNX Runtime sends from 1.29 on, to Microsoft
    os.environ.setdefault(_name, "1")
