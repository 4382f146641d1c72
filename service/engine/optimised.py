"""Graphs as ONNX Runtime has optimised them for this processor, kept in the user's cache folder.

To optimise a graph is most of the time in which a session is made; and while a graph is parsed with its weights in
it, no other thread of Python works. Of one that is kept, with its weights apart, a session is made in a third of the
time, once its files are read and checked. It computes the same.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import onnxruntime as ort
from msgspec import Struct

from service.engine.profile_cache import key_of
from service.engine.providers import CPU
from zoo.card import LARGEST_GRAPH
from zoo.files import read_regular
from zoo.home import cache_folder

logger = logging.getLogger(__name__)
_GRAPH, _WEIGHTS, _HASHES = "graph.onnx", "weights", "hashes.json"
_LARGEST, _SMALL = 2, 1_000_000  # a graph that grew more is not kept: twice its size, and a megabyte
_APART = 1024  # bytes from which on a tensor is among the weights


class _Hashes(Struct, frozen=True):
    """SHA-256 of the files."""

    graph: str
    weights: str


class Optimised:
    """What is kept of one graph. An object is for one load of it: files are read and checked once.

    Args:
        sha256: of the graph.
        size: of the graph, in bytes.
    """

    def __init__(self, sha256: str, size: int) -> None:
        self._parent = cache_folder() / "graphs"
        self._folder = self._parent / key_of(sha256, CPU, 0, "optimised")
        self._most = _LARGEST * size + _SMALL

    def session(self, options: ort.SessionOptions) -> ort.InferenceSession | None:
        """Make a session of what is kept; None if nothing is, or it is damaged: then it is removed."""
        if self._files is None:
            return None
        graph, weights = self._files
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimised
        options.add_external_initializers_from_files_in_memory([_WEIGHTS], [weights], [len(weights)])
        try:
            return ort.InferenceSession(graph, options, providers=[CPU], enable_fallback=0)
        except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
            logger.warning("the optimised graph in %s is not used: %s", self._folder, error)
            self._remove()
            return None

    @contextmanager
    def kept(self, options: ort.SessionOptions) -> Iterator[None]:
        """Keep the optimised graph of the session that is made with `options` in the block.

        Raises:
            OSError: it cannot be written. Where that is found later, making the session fails.
        """
        self._parent.mkdir(parents=True, exist_ok=True)
        part = Path(mkdtemp(dir=self._parent))
        try:
            options.optimized_model_filepath = str(part / _GRAPH)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
            options.add_session_config_entry(
                "session.optimized_model_external_initializers_min_size_in_bytes", str(_APART)
            )
            yield
            with suppress(OSError):  # another process has kept it meanwhile, or the disk is full
                self._move(part)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    @cached_property
    def _files(self) -> tuple[bytes, bytes] | None:
        """The graph and its weights, as they were written."""
        try:
            hashes = msgspec.json.decode(read_regular(self._folder / _HASHES), type=_Hashes)
            graph, weights = (read_regular(self._folder / name, LARGEST_GRAPH) for name in (_GRAPH, _WEIGHTS))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.DecodeError) as error:
            logger.warning("the optimised graph in %s cannot be read: %s", self._folder, error)
            self._remove()
            return None
        if hashes != _hashes(graph, weights):
            logger.warning("the optimised graph in %s is damaged: it is made anew", self._folder)
            self._remove()
            return None
        return graph, weights

    def _move(self, part: Path) -> None:
        """Give a folder that is whole its name."""
        (part / _WEIGHTS).touch()  # a graph without large tensors has none
        graph, weights = (part / _GRAPH).read_bytes(), (part / _WEIGHTS).read_bytes()
        if len(graph) + len(weights) <= self._most:
            (part / _HASHES).write_bytes(msgspec.json.encode(_hashes(graph, weights)))
            part.rename(self._folder)

    def _remove(self) -> None:
        self.__dict__["_files"] = None
        shutil.rmtree(self._folder, ignore_errors=True)


def _hashes(graph: bytes, weights: bytes) -> _Hashes:
    return _Hashes(hashlib.sha256(graph).hexdigest(), hashlib.sha256(weights).hexdigest())
