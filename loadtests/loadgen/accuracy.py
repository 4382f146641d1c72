"""LoadGen's AccuracyOnly: every image once, its answer in LoadGen's log, which `zooserve eval --answers` judges."""

import mimetypes
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zooserve_client.images import IMAGE_SUFFIXES, images_in

from loadtests.loadgen.bench import Setup, bench
from loadtests.loadgen.spec import Spec
from loadtests.loadgen.trial import ACCURACY_FILE, answer_all
from loadtests.loadgen.wire import Image
from loadtests.target import Target

_BESIDE_MASKS = ("JPEGImages", "images")  # folders of images, beside which others hold masks


def some_images(folder: Path, limit: int | None = None) -> list[Path]:
    """Return the images of a folder and below it, sorted, at even distances where they are to be few.

    Raises:
        ValueError: there is none.
    """
    root = next((folder / name for name in _BESIDE_MASKS if (folder / name).is_dir()), folder)
    found = images_in(root)
    if not found:
        raise ValueError(f"{folder} holds no images: expected files that end in {', '.join(IMAGE_SUFFIXES)}")
    if limit is None or limit >= len(found):
        return found
    return [found[number * len(found) // limit] for number in range(limit)]


def log_answers(
    target: Target, images: list[Path], logs: Path, common: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Path, dict[str, int], Target]:
    """Ask about every image once.

    Args:
        target: the server.
        images: whose files are sent as they are.
        logs: a folder for what LoadGen writes.
        common: the command's `options`, `connections` and `timeout`.
        say: told how it goes.

    Returns:
        The log, how many queries ended in which way, and the target with the task and the model that answered.

    Raises:
        MissingError, TargetError, SenderError, TrialError: as `bench` and `trial`.
    """
    kinds = [
        Image(mimetypes.guess_type(path.name)[0] or "application/octet-stream", path=str(path.resolve()))
        for path in images
    ]
    with TemporaryDirectory(prefix="loadgen-") as folder:
        setup = Setup(kinds, dict(common["options"]), common["connections"], 1, common["timeout"], logs)
        with bench(target, setup, say, answers=Path(folder) / "answers") as at:
            spec = Spec("Offline", max(1.0, len(images)), accuracy=True, min_queries=len(images))

            def on_second(passed: float, answered: int) -> None:
                if int(passed) % 10 == 0:
                    say(f"  {passed:.0f} s, {answered} of {len(images)} images")

            outcomes = answer_all(spec, at.sut, len(images), logs, on_second)
    return logs / ACCURACY_FILE, outcomes, at.target
