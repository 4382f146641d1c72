"""Whether a published graph answers an image alike alone and in a batch, on real photos; what does not runs one by one.

`export.importer.adding` asks. Noise proves little: a detector that suppresses boxes itself answers nothing to it.
"""

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto

from export.build import build
from export.heads import Pixels
from export.network import Network
from export.onnx_file.batch import BatchError, suppresses
from export.onnx_file.reading import open_session
from export.parity import differences, tolerances
from export.reference import Outputs, Reference
from zoo.errors import ExportError
from zoo.model_card import ModelCard

_BATCH = 4
_INSIDE = "it suppresses boxes itself, which exporters write for so many images as they were shown"


def build_free(card: ModelCard, files: dict[str, Path]) -> tuple[ModelCard, Network, str]:
    """Build a network that takes any batch, where the file has none one image at a time.

    Returns:
        The card, with the option `one_by_one` where it is needed, its network, and why it is needed, or "".

    Raises:
        ExportError: as the family's `build`.
    """
    try:
        network = build(card, files)
        reason = _INSIDE if isinstance(network.module, ModelProto) and suppresses(network.module) else ""
    except BatchError:
        reason = "its batch size is built in"
    if not reason:
        return card, network, ""
    card = _one_by_one(card)
    return card, build(card, files), reason


def prove(
    card: ModelCard, network: Network, files: dict[str, Path], images: npt.NDArray[np.uint8], classes: int
) -> tuple[ModelCard, str]:
    """Prove that each image is answered alike alone and at every place of a batch.

    Args:
        card: of the model.
        network: built for it.
        files: its sources.
        images: photos after the card's recipe, uint8 [M, H, W, 3].
        classes: how many labels there are.

    Returns:
        The card, with the option `one_by_one` where only that helps, and why it is needed, or "".

    Raises:
        ExportError: one by one, they are answered otherwise, too.
    """
    if (fault := _apart(card, network, images, classes)) is None:
        return card, ""
    alone = _one_by_one(card)
    if card == alone or _apart(alone, build(alone, files), images, classes) is not None:
        raise ExportError(f"{card.name}: the images of a batch are not independent of each other: {fault}")
    return alone, f"tried: {fault}"


def _one_by_one(card: ModelCard) -> ModelCard:
    return msgspec.structs.replace(card, options=card.options | {"one_by_one": True})


def _apart(card: ModelCard, network: Network, images: npt.NDArray[np.uint8], classes: int) -> str | None:
    """Say which image is answered otherwise in a batch than alone, or return None."""
    if not isinstance(network.module, ModelProto):
        return None
    session = open_session(network.module.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    head, pixels = Reference(card, network, classes).head, Pixels(card.normalise)

    @torch.no_grad()
    def answered(rows: list[int]) -> Outputs:
        x = pixels(torch.from_numpy(images[rows])).numpy()
        raw = zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True)
        return {name: value.numpy() for name, value in head({k: torch.from_numpy(v) for k, v in raw}).items()}

    try:
        alone = [answered([row]) for row in range(len(images))]
        allowed = tolerances(card, alone[0])
        for start in range(len(images)):
            rows = [(start + place) % len(images) for place in range(_BATCH)]
            together = answered(rows)
            for place, row in enumerate(rows):
                got = {name: value[place : place + 1] for name, value in together.items()}
                worst = differences(alone[row], got, allowed.get("scores", max(allowed.values())))
                if not all(difference <= allowed[name] for name, difference in worst.items()):
                    return f"a photo is answered otherwise at place {place + 1} of a batch than alone, by {worst}"
    except Exception as error:  # ONNX Runtime's errors have no common base of use
        return str(error)
    return None
