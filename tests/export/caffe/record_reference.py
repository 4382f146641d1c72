"""Record what OpenCV's own reader of Caffe's files answers to the networks of `conftest.py`: writes `reference.npz`.

OpenCV read Caffe's files up to version 4. In an environment with opencv-python-headless 4, numpy and protobuf, and the
checkout on PYTHONPATH:

    python tests/export/caffe/record_reference.py
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from conftest import NETWORKS, write_network

answers = {}
with tempfile.TemporaryDirectory() as folder:
    for name in NETWORKS:
        files = write_network(name, Path(folder))
        net = cv2.dnn.readNetFromCaffe(str(files.prototxt), str(files.weights))
        net.enableFusion(False)
        net.setInput(files.images)
        answers[name] = net.forward("logits").reshape(2, -1)
np.savez(Path(__file__).with_name("reference.npz"), **answers)
