"""Inference models of PaddleDetection and PaddleClas: PicoDet and its like without their own NMS, and classifiers.

A card of this family has the sources `program` (.pdmodel) and `parameters` (.pdiparams), and no options.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from export.activation import with_activation
from export.layers import LayerNetwork, Step, known_layer, try_out
from export.network import Network
from export.paddle.operators import OPERATORS, refuse_unknown
from export.paddle.program import Operator, Program, read_parameters, read_program
from zoo.card import USUAL, Nms
from zoo.errors import ExportError
from zoo.model_card import ModelCard

_NMS = "multiclass_nms3"
_MOST = 1000  # objects that a card allows; Paddle writes -1 for all


def build(card: ModelCard, files: dict[str, Path]) -> Network:
    """Rebuild the program up to the logits of its softmax, or up to the boxes and scores that go into its NMS.

    Raises:
        ExportError: the card lacks a file, a file is not what it should be, the program takes other images than those
            of the card's recipe, or has an operator or setting that is not known.
    """
    if set(files) != {"program", "parameters"} or card.options:
        raise ExportError(
            f"{card.name}: a card of the family `paddle` has the sources `program` and `parameters` and no options, "
            f"but this one has {sorted(files)} and {sorted(card.options)}"
        )
    path, height, width = files["program"], card.recipe.height, card.recipe.width
    program = read_program(path)
    trained = read_parameters(files["parameters"], program.parameters)
    # A detector scales its boxes back to the photo; served boxes stay in pixels of the input.
    fed = {"scale_factor": torch.ones(1, 2), "im_shape": torch.tensor([[float(height), float(width)]])}
    images = [name for name in program.inputs if name not in fed]
    if len(images) != 1 or not _fits(program.inputs[images[0]], (-1, 3, height, width)):
        raise ExportError(
            f"{path}: takes {dict(program.inputs)}, but the card's recipe makes [-1, 3, {height}, {width}]"
        )
    constants = {name: torch.from_numpy(value) for name, value in trained.items()}
    constants |= {name: value for name, value in fed.items() if name in program.inputs}
    operators, answers = _without_end(program, path)
    network = LayerNetwork(images[0], [_step(op) for op in operators], answers, constants).eval()
    try_out(network, 3, height, width, f"{path}: its operators do not fit together")
    module = Detector(network) if len(answers) == 2 else with_activation(network, height, width)
    published = _selection(program)
    usual = msgspec.structs.replace(published, score_threshold=USUAL.score_threshold)
    return Network(module, f"torch {torch.__version__}", original=False, nms_options=usual, evaluation=published)


def _selection(program: Program) -> Nms:
    """How the program's own NMS selects objects."""
    for op in program.operators:
        if op.kind == _NMS:
            own = op.settings
            # Settings are float32: .6 is .60000002.
            score, iou = (round(float(own.get(key, 0.0)), 6) for key in ("score_threshold", "nms_threshold"))
            kept = int(own.get("keep_top_k", -1))
            return Nms(score, iou, kept if 1 <= kept <= _MOST else _MOST)
    return USUAL


def _fits(shape: tuple[int, ...], want: tuple[int, ...]) -> bool:
    return len(shape) == len(want) and all(a in {-1, b} for a, b in zip(shape, want, strict=True))


def _without_end(program: Program, path: Path) -> tuple[list[Operator], tuple[str, ...]]:
    """Return the operators before NMS and its boxes and scores; or those before the last softmax, and the logits."""
    operators = list(program.operators)
    for index, op in enumerate(operators):
        if op.kind == _NMS:
            return operators[:index], (op.inputs["BBoxes"][0], op.inputs["Scores"][0])
    if len(program.outputs) != 1:
        raise ExportError(f"{path}: has the outputs {list(program.outputs)} and no {_NMS}; expected one, the logits")
    end = next((index for index in reversed(range(len(operators))) if not _keeps_numbers(operators[index])), 0)
    last = operators[end]
    if last.kind == "sigmoid":
        raise ExportError(
            f"{last.where} is its end, so each class has a score alone, and a classifier here answers probabilities of "
            "classes that exclude each other"
        )
    if last.kind == "softmax":
        return operators[:end], (last.inputs["X"][0],)
    return operators, program.outputs


def _keeps_numbers(op: Operator) -> bool:
    """Whether an operator gives its input another shape or name only: Paddle scales what is fetched by 1."""
    scaled = (op.settings.get("scale"), op.settings.get("bias")) != (1.0, 0.0)
    return op.kind in {"flatten_contiguous_range", "reshape2"} or (op.kind == "scale" and not scaled)


def _step(op: Operator) -> Step:
    """An operator as a step: its inputs, which Paddle groups by parameter, one after the other."""
    run = known_layer(OPERATORS, op.kind, op.where)
    refuse_unknown(op)
    outputs = next((op.outputs[key] for key in ("Out", "Output", "Y") if key in op.outputs), None)
    if outputs is None:
        raise ExportError(f"{op.where} has no output: the file is damaged")

    def compute(*values: Tensor) -> Sequence[Tensor]:
        rest = iter(values)
        return run(op, {parameter: [next(rest) for _ in names] for parameter, names in op.inputs.items()})

    return Step(tuple(name for names in op.inputs.values() for name in names), outputs, compute)


class Detector(nn.Module):
    """float32 [N, 3, H, W] -> `boxes` [N, A, 4] and `scores` [N, A, C]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        boxes, scores = self.network(x)
        return {"boxes": boxes, "scores": scores.transpose(1, 2)}
