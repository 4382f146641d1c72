"""Fills a mirror with a file that others write too and ten of its own: `python -m tests.zoo.fill_mirror FOLDER N`."""

import sys
from pathlib import Path

from zoo.fetching import Fetched, _put, _write_sums


def main(folder: Path, number: str) -> None:
    body = folder / f"body{number}"
    body.write_bytes(bytes(3_000_000))
    mirror = folder / "mirror"
    for step in range(10):
        own = mirror / "host" / f"{number}-{step}.pth"
        for target in (mirror / "host/same.pth", own):
            _put(body, target)
            _write_sums(mirror, [Fetched("", "", str(target), "0" * 64, 3_000_000)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
