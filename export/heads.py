"""The served graph around a network: pixels in, small answers out (normalisation, layout and the head of the task).

`export.convert` exports it, `export.parity` runs the same head on the reference's raw answers.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor, nn

from zoo.errors import ExportError
from zoo.keypoints import find_keypoints
from zoo.model_card import ModelCard, Normalise

Raw = Mapping[str, Tensor]
CANDIDATES = 1000
"""Most candidate boxes that a graph hands to non-maximum suppression, where its card does not name more. An object has
dozens of candidates before NMS, so fewer would cost recall in a full image."""
OBJECTS = 300
"""Most boxes of a graph whose boxes are objects already."""

_VIEWS: Mapping[str, tuple[int | str, ...]] = {"activation": ("N", "h", "w"), "embedding": ("N", "F")}
"""What a classifier may answer beside its classes (`export.activation`)."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights of Pillow's `convert("L")`


class Pixels(nn.Module):
    """uint8 [N, H, W, 3] RGB -> what the network was trained on, float32 [N, 3, H, W] (grey: [N, 1, H, W])."""

    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(self, normalise: Normalise) -> None:
        super().__init__()
        self.channels, self.brightest = normalise.channels, normalise.brightest
        self.register_buffer("mean", torch.tensor(normalise.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalise.std).view(1, 3, 1, 1))
        self.register_buffer("luma", torch.tensor(_LUMA).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float()
        if self.brightest:
            x = x * (255 / x.amax((1, 2, 3), keepdim=True).clamp(min=1))  # a black image stays black
        x = (x - self.mean) / self.std
        if self.channels == "bgr":
            return x.flip(1)
        if self.channels == "grey":
            return (x * self.luma).sum(1, keepdim=True)
        return x


class Head(nn.Module):
    """Raw answers of a network (see `export.network.Network`) -> the outputs of its task, in the order of the card.

    Raises:
        ExportError: where the raw answers are not those of the task, or not of as many classes as the card has labels.
    """

    def __init__(self, card: ModelCard, classes: int, *, limit: int = CANDIDATES) -> None:
        super().__init__()
        self.card = card
        self.classes = classes
        self.limit = limit
        self.size = (card.recipe.height, card.recipe.width)
        if card.task == "segment" and classes > 256:
            raise ExportError(
                f"{card.name}: {classes} classes do not fit into a mask of bytes; {card.labels!r} is too long"
            )

    def forward(self, raw: Raw) -> dict[str, Tensor]:
        self._check(raw)
        if self.card.task == "classify":
            return {"probabilities": raw["logits"].softmax(1)} | {name: raw[name] for name in _VIEWS if name in raw}
        if "boxes" in raw:
            return candidates(raw, self.limit, class_scores=self.card.class_scores)
        if "alpha" in raw:
            return {"alpha": (self._opacity(raw["alpha"][:, 0]) * 255).round().clamp(0, 255).to(torch.uint8)}
        logits = raw["logits"]
        if logits.shape[-2:] != self.size:
            logits = F.interpolate(logits, self.size, mode="bilinear", align_corners=False)
        return {"mask": logits.argmax(1).to(torch.uint8)}

    def _opacity(self, alpha: Tensor) -> Tensor:
        """Stretch each image's opacity, [N, H, W], to 0..1, if the card says so; one value everywhere becomes 0."""
        if not self.card.min_max:
            return alpha
        low, high = alpha.amin((1, 2), keepdim=True), alpha.amax((1, 2), keepdim=True)
        return (alpha - low) / (high - low).clamp(min=torch.finfo(alpha.dtype).tiny)

    def _check(self, raw: Raw) -> None:
        if self.card.class_scores and ("boxes" not in raw or "classes" in raw):
            raise ExportError(
                f"{self.card.name}: there are no scores of several classes of a box, so it has no `class_scores`"
            )
        if self.card.min_max and "alpha" not in raw:
            raise ExportError(f"{self.card.name}: it answers no opacity of a salient object, so it has no `min_max`")
        height, width = self.size
        want: dict[str, tuple[int | str, ...]]
        if self.card.task == "classify":
            want = {"logits": ("N", self.classes)} | {name: shape for name, shape in _VIEWS.items() if name in raw}
        elif self.card.task in ("detect", "pose", "obb") or "boxes" in raw:
            want = {"boxes": ("N", "A", 5 if self.card.task == "obb" else 4), "scores": ("N", "A", self.classes)}
            if "classes" in raw:
                want |= {"scores": ("N", "A"), "classes": ("N", "A")}
            if self.card.task == "segment":
                want |= {"coefficients": ("N", "A", "M"), "prototypes": ("N", "M", "h", "w")}
            if self.card.keypoints is not None:
                want |= {"keypoints": ("N", "A", len(find_keypoints(self.card.keypoints).names), 3)}
        elif "alpha" in raw:
            want = {"alpha": ("N", 1, height, width)}
        else:
            want = {"logits": ("N", self.classes, "h", "w")}
        got = {name: tuple(value.shape) for name, value in raw.items()}
        if got.keys() != want.keys() or not all(_fits(got[name], want[name]) for name in want):
            raise ExportError(
                f"{self.card.name}: the network answers {got}, but the task {self.card.task} with the {self.classes} "
                f"labels of {self.card.labels!r} needs {want}. Check the card's `task`, `labels` and `recipe`."
            )


def _fits(shape: tuple[int, ...], want: tuple[int | str, ...]) -> bool:
    return len(shape) == len(want) and all(isinstance(w, str) or s == w for s, w in zip(shape, want, strict=True))


def candidates(raw: Raw, limit: int, *, class_scores: bool = False) -> dict[str, Tensor]:
    """The K best candidates, best first, each with its best class; K = min(limit, A).

    One class per candidate is how detectors are used: a client wants one label on a box. Evaluations that let one box
    stand for several classes count the second guesses too, at scores far below any useful threshold: for those there
    are `class_scores`. All shapes are fixed but the batch, and the order makes NMS over any score threshold work on a
    prefix.

    Args:
        raw: `boxes` [N, A, 4] xyxy in input pixels, or rotated ones [N, A, 5]; `scores` in 0..1, [N, A, C], or [N, A]
            with `classes` [N, A]; for instances also `coefficients` [N, A, M] and `prototypes` [N, M, h, w]; for poses
            `keypoints` [N, A, P, 3].
        limit: most candidates.
        class_scores: whether to answer the scores of all classes, too, where the network gives them.

    Returns:
        `boxes` float32 [N, K, 4 or 5], `scores` float32 [N, K], `classes` int32 [N, K]; for instances also
        `coefficients` float32 [N, K, M] and `prototypes` as they were; for poses `keypoints` float32 [N, K, P, 3]. With
        `class_scores`, those as float32 [N, K, C].
    """
    best, classes = (raw["scores"], raw["classes"]) if "classes" in raw else raw["scores"].max(2)
    top, order = best.topk(min(limit, best.shape[1]), dim=1)

    def of_chosen(name: str) -> Tensor:
        values = raw[name].flatten(2)
        picked = values.gather(1, order[..., None].expand(-1, -1, values.shape[2]))
        return torch.unflatten(picked, 2, raw[name].shape[2:]) if raw[name].ndim > 3 else picked

    chosen = {"boxes": of_chosen("boxes"), "scores": top, "classes": classes.gather(1, order).to(torch.int32)}
    if "prototypes" in raw:
        chosen |= {"coefficients": of_chosen("coefficients"), "prototypes": raw["prototypes"]}
    if "keypoints" in raw:
        chosen["keypoints"] = of_chosen("keypoints")
    if class_scores and "classes" not in raw:
        chosen["class_scores"] = of_chosen("scores")
    return chosen
