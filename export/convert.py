"""Network -> one self-contained ONNX model with the contract's inputs and outputs.

Called by `export.pipeline` and, for networks that take tensors, by `export.tensors`.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from textwrap import shorten
from types import MappingProxyType

import onnx
import onnx.compose
import onnx.version_converter
import torch
from onnx import ModelProto
from torch import Tensor, nn

from export.batch import BATCH, name_batch
from export.heads import Head, Pixels
from export.network import Network, OnnxNetwork, TensorNetwork
from export.shapes import settle
from zoo.errors import ExportError
from zoo.model_card import AnyCard, ModelCard, TensorCard

OPSET = 20
INPUT = "images"
IMAGE = "image"  # the output that is one
_MAX_BYTES = 2**31 - 1  # of one protobuf message, so of one self-contained ONNX file


class ServedGraph(nn.Module):
    """uint8 [N, H, W, 3] -> the outputs of the task, for a network in torch."""

    def __init__(self, pixels: Pixels, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.pixels = pixels
        self.network = network
        self.head = head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.head(self.network(self.pixels(images)))
        return outputs


class ImageHead(nn.Module):
    """The outputs of a network without a task, as they are; an image among them as uint8 [N, h, w, C]."""

    def forward(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = dict(raw)
        if IMAGE in outputs:
            outputs[IMAGE] = outputs[IMAGE].clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return outputs


def convert(
    card: ModelCard, network: Network, head: Head, raw: Mapping[str, Tensor], *, verbose: bool = False
) -> ModelProto:
    """Convert a network to ONNX with its pixels in front and its head behind, opset 20, dynamic batch, checked.

    Args:
        card: gives the input's size and its normalisation.
        network: in torch, or as ONNX.
        head: of the card's task.
        raw: the network's raw answers to a batch of two images; the head is made for their shapes.
        verbose: let the exporter say what it does.

    Raises:
        ExportError: the exporter or the ONNX checker refused the network, or it is too large for one file.
    """
    pixels = Pixels(card.normalise)
    images = torch.zeros(2, card.recipe.height, card.recipe.width, 3, dtype=torch.uint8)
    outputs = list(head(raw))
    with _refusing(card, verbose=verbose):
        if isinstance(network.module, nn.Module):
            _refuse_large(card, sum(p.nbytes for p in network.module.parameters()))
            graph = ServedGraph(pixels, network.module, head)
            model = _export(graph, {"images": images}, [INPUT], outputs, verbose=verbose)
        else:
            before = _export(pixels, {"images": images}, [INPUT], ["normalised"], verbose=verbose)
            after = _export(head, {"raw": dict(raw)}, [f"raw/{name}" for name in raw], outputs, verbose=verbose)
            model = _compose(before, network.module, after)
        _forget_origin(model)
        name_batch(model)
        settle(model)
        _refuse_large(card, model.ByteSize())
        onnx.checker.check_model(model, full_check=True)
    return model


def convert_tensors(
    card: TensorCard, network: TensorNetwork, outputs: list[str], *, verbose: bool = False
) -> ModelProto:
    """Convert a network that takes tensors to ONNX, opset 20, dynamic batch, checked.

    Args:
        card: gives the model's name.
        network: in torch.
        outputs: their names, in the order of the network's answer.
        verbose: let the exporter say what it does.

    Raises:
        ExportError: the exporter or the ONNX checker refused the network, or it is too large for one file.
    """
    example = {name: torch.from_numpy(value[:2]) for name, value in network.rows.items()}
    module = network.module
    with _refusing(card, verbose=verbose):
        _refuse_large(card, sum(p.nbytes for p in module.parameters()))
        if isinstance(module, ServedGraph) and isinstance(module.network, OnnxNetwork):
            raw = module.network(module.pixels(example[INPUT]))
            before = _export(module.pixels, example, [INPUT], ["normalised"], verbose=verbose)
            after = _export(module.head, {"raw": raw}, [f"raw/{name}" for name in raw], outputs, verbose=verbose)
            model = _compose(before, module.network.model, after)
        else:
            model = _export(module, example, list(example), outputs, free=network.free, verbose=verbose)
        _forget_origin(model)
        name_batch(model)
        onnx.checker.check_model(model, full_check=True)
    return model


def _export(
    module: nn.Module,
    example: Mapping[str, object],
    inputs: list[str],
    outputs: list[str],
    *,
    free: Mapping[str, Mapping[int, str]] = MappingProxyType({}),
    verbose: bool,
) -> ModelProto:
    """Export with dynamo. `example` gives the arguments of `forward` by name: tensors, or dicts of tensors."""
    batch = {0: torch.export.Dim(BATCH, min=1)}
    dynamic = {k: batch if isinstance(v, Tensor) else dict.fromkeys(v, batch) for k, v in example.items()}  # type: ignore[call-overload]
    sides = {name: torch.export.Dim(name, min=1) for axes in free.values() for name in axes.values()}
    dynamic |= {k: batch | {axis: sides[name] for axis, name in axes.items()} for k, axes in free.items()}
    for layer in module.modules():
        if getattr(layer, "inplace", False):  # the exporter takes operators in place apart, which takes it long
            layer.inplace = False  # type: ignore[assignment]
    program = torch.onnx.export(
        module.eval(),
        kwargs=dict(example),
        dynamo=True,
        opset_version=OPSET,
        input_names=inputs,
        output_names=outputs,
        dynamic_shapes=dynamic,
        external_data=False,
        verbose=verbose,
    )
    if program is None:
        raise ExportError("torch.onnx.export gave no program")
    return program.model_proto


def _compose(before: ModelProto, network: ModelProto, after: ModelProto) -> ModelProto:
    """Chain pixels, a published ONNX network and its head; prefixes keep their inner names apart."""
    network = onnx.version_converter.convert_version(network, OPSET)
    network.ir_version = before.ir_version
    before = onnx.compose.add_prefix(before, "pixels/", rename_inputs=False, rename_outputs=False)
    network = onnx.compose.add_prefix(network, "network/")
    after = onnx.compose.add_prefix(after, "head/", rename_outputs=False)
    entry = [(before.graph.output[0].name, network.graph.input[0].name)]
    model = onnx.compose.merge_models(before, network, entry)
    exits = [(f"network/{x.name.removeprefix('head/raw/')}", x.name) for x in after.graph.input]
    model = onnx.compose.merge_models(model, after, exits, name="served")
    versions = {entry.domain: entry for entry in model.opset_import}  # each part brought its own, all alike
    del model.opset_import[1:]
    model.opset_import[0].CopyFrom(versions.pop(model.opset_import[0].domain))
    model.opset_import.extend(versions.values())
    return model


def _refuse_large(card: AnyCard, size: int) -> None:
    if size > _MAX_BYTES:
        raise ExportError(f"{card.name}: {size / 2**30:.2f} GiB of weights; one ONNX file holds at most 2 GiB")


def _forget_origin(model: ModelProto) -> None:
    """Drop the exporter's stack traces: they name paths of this machine and make the file depend on it."""
    graph = model.graph
    for item in (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output, *model.functions):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for field in ("metadata_props", "doc_string"):
        model.ClearField(field)
        graph.ClearField(field)


@contextmanager
def _refusing(card: AnyCard, *, verbose: bool) -> Iterator[None]:
    """Turn errors of the exporter and the checker, which are of many kinds, into an `ExportError`."""
    try:
        with _quiet(verbose):
            yield
    except ExportError:
        raise
    except Exception as error:
        reason = shorten(str(error), 500, placeholder=" ... (--verbose shows the rest)")
        raise ExportError(f"{card.name}: the network does not convert to ONNX: {reason}") from error


@contextmanager
def _quiet(verbose: bool) -> Iterator[None]:
    """Keep the exporter's warnings and log lines back; its errors are raised, so nothing is lost."""
    if verbose:
        yield
        return
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
