"""An image as `perf_analyzer --input-data` takes it: `python loadtests/recipes/perf_analyzer_input.py IMAGE OUT.json`.

The Open Inference Protocol puts the length, a little-endian uint32, before each element of a BYTES tensor, and
perf_analyzer sends base64 as it is: the length has to be in it.
"""

import base64
import json
import struct
import sys
from pathlib import Path


def input_data(image: bytes) -> str:
    """Return the file's contents for one encoded image (JPEG, PNG, ...)."""
    element = struct.pack("<I", len(image)) + image
    tensor = {"content": {"b64": base64.b64encode(element).decode()}, "shape": [1]}
    return json.dumps({"data": [{"image": tensor}]})


def main() -> None:
    """Read the image that the first argument names, and write the second."""
    if len(sys.argv) != 3:
        sys.exit("expected two arguments: the image, and the file to write")
    Path(sys.argv[2]).write_text(input_data(Path(sys.argv[1]).read_bytes()), encoding="utf-8")


if __name__ == "__main__":
    main()
