"""Original libraries' networks with random weights, where real ones cannot be had everywhere: values of one scale.

Called by the other modules of this folder, and by the tests of `export.families`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from commands.originals.differences import Pixels
from export.heads import Pixels as Normalised
from export.ultralytics.library import import_library
from zoo.model_card import ModelCard

CATEGORIES: Sequence[str] = get_model_weights("fcos_resnet50_fpn").DEFAULT.meta["categories"]
"""Of torchvision's detectors: COCO's, the background first."""
_LINEAR = 6.0
_EDGE = 12.0  # more than scores before the sigmoid differ by
UNUSED = [i for i, category in enumerate(CATEGORIES) if category == "N/A"]


def calibrate(model: nn.Module, run: Callable[[], object]) -> None:
    """Let batch norms take over what they see in a run, so that values stay of one scale throughout the network.

    Values lie about 2, where activations are nearly linear: else each layer of random weights adds to a difference, and
    one grey level becomes another answer.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
        nn.init.constant_(norm.bias, _LINEAR)
    with torch.no_grad():
        run()
    for norm in norms:
        norm.eval()
        if norm.running_var is not None:  # lest float noise grows from layer to layer
            norm.running_var.clamp_(min=norm.running_var.mean().item() / 4)


def spread(run: Callable[[], object], layers: Sequence[Any], mean: float, std: float) -> None:
    """Rescale layers so that what each of their channels answers in a run has this mean and standard deviation.

    Args:
        run: runs the network. Layers that it leaves out stay as they are.
        layers: linear ones and convolutions, with a bias.
        mean: of a channel.
        std: likewise.
    """
    seen: dict[Any, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: Any, _: object, out: Tensor) -> None:
        channels = out.movedim(1, -1) if isinstance(layer, nn.Conv2d) else out
        seen[layer].append(channels.flatten(0, -2))

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    with torch.no_grad():
        run()
        for layer, hook in zip(layers, hooks, strict=True):
            hook.remove()
            if not seen[layer]:
                continue
            answers = torch.cat(seen[layer])
            scale = std / answers.std(0).clamp(min=1e-6)
            layer.weight *= scale.view(-1, *(1,) * (layer.weight.ndim - 1))
            layer.bias.copy_((layer.bias - answers.mean(0)) * scale + mean)


def pixel_network(model: nn.Module, card: ModelCard, images: Sequence[Pixels], classes: int) -> nn.Module:
    """Give random weights to a classifier or a network of classes per pixel, so that its answers to photos differ.

    Args:
        model: whose last layers have one output per class.
        card: gives the preparation of the graph's pixels.
        images: after the card's recipe, uint8 [H, W, 3].
        classes: how many.
    """
    x = Normalised(card.normalise)(torch.from_numpy(np.stack(images)))
    calibrate(model.eval(), lambda: model(x))
    spread(lambda: model(x), [layer for layer in model.modules() if _outputs(layer) == classes], 0, 3)
    return model


def _outputs(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, nn.Conv2d) else 0


def torchvision_detector(card: ModelCard, x: Tensor, classes: int = len(CATEGORIES)) -> Any:
    """Torchvision's own detector with random weights, scores and boxes spread as those of a trained one.

    As training leaves them, categories that COCO does not use are never found.

    Args:
        card: names the architecture and the input's size.
        x: photos, float32 [N, 3, H, W] in 0..1.
        classes: of the network, background included.
    """
    name = str(card.options["architecture"])
    torch.manual_seed(0)
    model: Any = get_model(name, weights=None, weights_backbone=None, num_classes=classes).eval()
    if not name.startswith("ssd"):
        model.transform.min_size, model.transform.max_size = (card.recipe.height,), card.recipe.width

    def run() -> object:
        return model(list(x))

    calibrate(model, run)
    if name.startswith("fasterrcnn"):
        predictor = model.roi_heads.box_predictor
        spread(run, [model.rpn.head.cls_logits], 0, 2)
        spread(run, [model.rpn.head.bbox_pred], 0, 0.3)
        spread(run, [predictor.cls_score, predictor.bbox_pred], 0, 1.5)
        scoring, background = [predictor.cls_score], 4.0
    elif name.startswith("ssd"):
        scoring, boxes = (
            [one[-1] if isinstance(one, nn.Sequential) else one for one in head.module_list]
            for head in (model.head.classification_head, model.head.regression_head)
        )
        spread(run, [*scoring, *boxes], 0, 1.5)
        background = 5.0
    else:
        scoring, background = [model.head.classification_head.cls_logits], -60.0  # sigmoids do not learn a background
        spread(run, scoring, -6, 2)
        spread(run, [model.head.regression_head.bbox_reg], 3 if name.startswith("fcos") else 0, 0.5)
    with torch.no_grad():
        for layer in scoring:
            biases = layer.bias.view(-1, classes)
            biases[:, 0] += background
            if classes == len(CATEGORIES):
                biases[:, UNUSED] -= 60
    return model


def libreyolo_detector(model: str, size: str, photos: Sequence[Pixels]) -> Any:
    """LibreYOLO's own model with random weights: features normalised to these photos, and scores that spread.

    Args:
        model: as LibreYOLO names it, such as yolox.
        size: likewise, such as n.
        photos: uint8 [S, S, 3] RGB, S being the side of its input.
    """
    from export.families.libreyolo import DETECTORS  # noqa: PLC0415 - an extra

    torch.manual_seed(0)
    detector = DETECTORS[model]
    wrapper: Any = detector.build(model_path={}, size=size, nb_classes=80, device="cpu")
    network = wrapper.model.eval()
    x = Normalised(detector.normalise)(torch.from_numpy(np.stack(photos)))

    def run() -> object:
        return network(x)

    calibrate(network, run)
    last: list[Any] = [x for x in network.modules() if isinstance(x, nn.Conv2d | nn.Linear) and x.bias is not None]
    # Of classes, and PicoDet's boxes beside them.
    rare = -8.0 if detector.nms else -5.0  # among thousands of candidates, or hundreds
    scores = [layer for layer in last if len(layer.bias) in {80, 81, 112}]
    if detector.nms:
        spread(run, scores, rare, 1.5)
    else:
        encoder = network.decoder.enc_score_head
        spread(run, [encoder], rare, 1.5)
        _leave_out_the_edge(network.decoder, run)
        spread(run, [layer for layer in scores if layer is not encoder], rare, 1.5)  # of what the encoder scores best
    # Of boxes: YOLOX takes exponentials, RTMDet's are not to be inside out, and a transformer's are corrections.
    sides = [layer for layer in last if len(layer.bias) == 4]
    spread(run, [layer for layer in sides if isinstance(layer, nn.Conv2d)], 1, 0.3)
    spread(run, [layer for layer in sides if isinstance(layer, nn.Linear)], 0, 0.3)
    return wrapper


def _leave_out_the_edge(decoder: Any, run: Callable[[], object]) -> None:
    """Let a DETR's encoder score anchors at the edge low, as training does.

    All of these have the same features. If they were among the best, which of them the decoder gets would be chance.
    """
    seen: list[Tensor] = []
    hook = decoder.enc_output.register_forward_hook(lambda _layer, _given, out: seen.append(out.flatten(0, 1)))
    with torch.no_grad():
        run()
        hook.remove()
        edge = decoder.enc_output(torch.zeros(1, seen[0].shape[-1]))[0]
        away = torch.cat(seen).mean(0) - edge
        decoder.enc_score_head.weight += _EDGE * away / away.square().sum()


def untrained(name: str, images: Sequence[Pixels], classes: int | None = None) -> Any:
    """Ultralytics' `YOLO` of an architecture, such as yolo11n-pose, with values of one scale throughout.

    Args:
        name: of the architecture, and its task.
        images: uint8 [height, width, 3] RGB, of one size that 32 divides; the best scores on them are about 0.9.
        classes: how many; None: as many as the architecture's description has.
    """
    torch.manual_seed(1)
    yolo: Any = import_library("ultralytics").YOLO(f"{name}.yaml", task=name.rpartition("-")[2])
    if classes is not None:
        own = type(yolo.model)(f"{name}.yaml", nc=classes, verbose=False)
        own.args, own.task = yolo.model.args, yolo.model.task
        yolo.model = own
    model = yolo.model
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0  # takes over what it sees
    with torch.no_grad():
        model.train()(inputs)
    model.eval()
    head = model.model[-1]
    branches = getattr(head, "one2one_cv3", None) or head.cv3
    with torch.no_grad():
        raw = model(inputs)[1]
        logits = raw.get("one2one", raw)["scores"]
        for branch in branches:
            branch[-1].weight /= logits.std()
            branch[-1].bias[:] = (branch[-1].bias - logits.max()) / logits.std() + 2
    return yolo
