"""Networks are converted once in a run of the tests: whichever process of it converts one first keeps it for all.

Tests convert the same preprocessing, heads and networks again and again, and a conversion takes seconds.
"""

import functools
import hashlib
import marshal
import os
import pickle
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from export import convert

converting = convert._export
"""Without looking into a folder."""
MOST_BYTES = 2**30
"""What is kept in all: tests run on machines with small disks."""
_exporter = torch.onnx.export
_operators = functools.cache(ONNXRegistry.from_torchlib)  # takes half a second, in each conversion


class _Hash(pickle.Pickler):
    """Pickles into a hash: of tensors what they hold, of functions without a name their code."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        super().__init__(self)

    def write(self, data: bytes) -> None:
        self.sha256.update(data)

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            content = hashlib.sha256(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()).hexdigest()
            return str, (f"{value.dtype} {tuple(value.shape)} {value.stride()} {content}",)
        if isinstance(value, types.FunctionType) and "<" in value.__qualname__:
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            return tuple, ([marshal.dumps(value.__code__), value.__defaults__, value.__kwdefaults__, cells],)
        return NotImplemented


def key_of(*what: object) -> str | None:
    """A hash of all that decides what a conversion gives; None where that cannot be told."""
    try:
        (hashed := _Hash()).dump(what)
    except (pickle.PickleError, AttributeError, TypeError, RuntimeError, ValueError):
        return None
    return hashed.sha256.hexdigest()


def keeping(folder: Path) -> Callable[..., onnx.ModelProto]:
    """`convert._export`, which looks into a folder first. A test that replaces torch's exporter is not answered so."""

    def kept(
        module: nn.Module,
        example: Mapping[str, object],
        inputs: list[str],
        outputs: list[str],
        *,
        free: Mapping[str, Mapping[int, str]] = types.MappingProxyType({}),
        verbose: bool,
    ) -> onnx.ModelProto:
        key = None
        if torch.onnx.export is _exporter and not verbose:
            key = key_of(module.eval(), dict(example), inputs, outputs, {k: dict(v) for k, v in free.items()})
        if key is None:
            return converting(module, example, inputs, outputs, free=free, verbose=verbose)
        path = folder / key
        if not path.exists():
            model = converting(module, example, inputs, outputs, free=free, verbose=verbose)
            content = model.SerializeToString()
            if len(content) + sum(whole.stat().st_size for whole in folder.iterdir() if not whole.suffix) > MOST_BYTES:
                return model
            part = path.with_suffix(f".{os.getpid()}")
            part.write_bytes(content)
            part.rename(path)
        return onnx.load_model_from_string(path.read_bytes())

    return kept


def on_one_thread(start: Callable[..., None]) -> Callable[..., None]:
    """`InferenceSession.__init__`; see `OMP_NUM_THREADS` in tests/conftest.py. What is said otherwise counts."""

    @functools.wraps(start)
    def started(self: object, graph: object, sess_options: Any = None, *more: Any, **named: Any) -> None:
        options = sess_options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.intra_op_num_threads or 1
        start(self, graph, options, *more, **named)

    return started


def keep(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Keep the conversions of this process in a folder, and let graphs run on one thread."""
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(session, "__init__", on_one_thread(session.__init__))
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(_operators))
    monkeypatch.setattr(convert, "_export", keeping(folder))
