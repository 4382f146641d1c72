"""RF-DETR (Apache-2.0) of LibreYOLO as a network that converts. `export.families.libreyolo` builds it."""

from typing import Any

from libreyolo.utils.coco import COCO91_CATEGORY_IDS
from torch import Tensor, nn

from zoo.errors import ExportError


class RfDetr(nn.Module):
    """float32 [N, 3, H, W] -> `pred_boxes` [N, Q, 4], centre and size in 0..1, and `pred_logits` [N, Q, C].

    Its head has a place for each of COCO's category ids, of which 80 of 1 to 90 are in use, or for each class and one
    more. Only those of the classes are kept.

    Args:
        network: of LibreYOLO; it is brought into the form that it has for exports.
        classes: how many labels there are.

    Raises:
        ExportError: the head has another number of places.
    """

    def __init__(self, network: Any, classes: int) -> None:
        super().__init__()
        outputs = len(network.class_embed.bias)
        if outputs == classes + 1:
            self.columns = tuple(range(classes))
        elif outputs == max(COCO91_CATEGORY_IDS) + 1 and classes == len(COCO91_CATEGORY_IDS):
            self.columns = tuple(COCO91_CATEGORY_IDS)
        else:
            raise ExportError(f"RF-DETR's head has {outputs} places, which are none of {classes} labels")
        network.eval().export()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        boxes, logits = self.network(x)[:2]
        return {"pred_boxes": boxes, "pred_logits": logits[..., list(self.columns)]}
