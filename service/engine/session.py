"""One ONNX graph on the provider that was asked for, or an error: arrays by name in, arrays by name out.

`service.models` loads it, the batcher runs it. Errors are told apart: no memory, a lost GPU, anything else.
"""

import logging
from pathlib import Path

import onnxruntime as ort
from msgspec import Struct

from service.arrays import Tensors
from service.engine.binding import Binding, Fill
from service.engine.cuda import Stream
from service.engine.device_errors import BrokenDeviceError, kind_of, told_apart
from service.engine.optimised import Optimised
from service.engine.plugins import Plugin
from service.engine.providers import (
    CPU,
    GPUS,
    Device,
    ProviderError,
    Providers,
    Tuning,
    check,
    choose,
    remove_engines,
    requested,
)
from service.engine.stop import Stop
from zoo.card import LARGEST_GRAPH
from zoo.files import read_regular

logger = logging.getLogger(__name__)
# What ONNX Runtime says of a tensor whose values are in a file of their own, wherever in the graph it is.
_EXTERNAL = ("xternal data", "external TensorProto", "Data of TensorProto", "in-memory address marker")
_NOWHERE = "/dev/null/none"  # no file can be there
_NO_GRAPH, _GRAPH = -1, 1  # numbers of CUDA graphs; each thread and session has its own


class Width(Struct, frozen=True):
    """How many threads compute one run on a CPU.

    Attributes:
        threads: the caller's and those that help it.
        spins: whether those wait for their next part of a run without sleeping; between runs they always sleep.
    """

    threads: int = 1
    spins: bool = False


NARROW = Width()


class SessionError(Exception):
    """A graph that cannot be run as it was asked to be, with the reason."""


class NoRoomError(SessionError, MemoryError):
    """A graph for which the device has no memory."""


class Session:
    """A loaded graph. `run` may be called from several threads at once, unless the session is bound.

    Each run computes on its caller's thread. Where the session has more than one, the others help; all runs share them.

    Attributes:
        provider: the name of the execution provider that it runs on.
        tuning: of the GPU.
        width: the threads of a run on a CPU.
        output_names: of all outputs, in the graph's order.
    """

    def __init__(
        self,
        model: bytes | Path,
        device: Device,
        device_id: int = 0,
        tuning: Tuning | None = None,
        stop: Stop | None = None,
        width: Width = NARROW,
        batch: int = 0,
        stream: Stream | None = None,
        plugin: Plugin | None = None,
        cores: int = 1,
        optimised: Optimised | None = None,
    ) -> None:
        """Load a graph.

        Args:
            model: the bytes of the `model.onnx`, or its path. It is read once, and no other file is: data outside it
                would be read again later, by then perhaps changed.
            device: `auto` takes CUDA where this ONNX Runtime was built with it and there is a GPU, else the CPU.
            device_id: of the GPU.
            tuning: of the GPU.
            stop: ends the loading, and every run, when it is asked to.
            width: the threads of a run on a CPU.
            batch: the rows of every run; 0: any number.
            stream: gives the session fixed buffers for that batch. It belongs to the calling thread then.
            plugin: computes instead of ONNX Runtime's own kernels for the CPU.
            cores: that the session's runs share; only a plug-in must know it.
            optimised: what is kept of the graph for a CPU. It is used where it is there, and made where it is not.

        Raises:
            SessionError: the graph does not load, needs another file, or ONNX Runtime fell back to another provider.
            NoRoomError: the device has no memory for it.
            BrokenDeviceError: the GPU is lost.
        """
        self.tuning = tuning or Tuning()
        self.width = width
        self._device_id = device_id
        self._stop = stop or Stop()
        self._bound = stream is not None
        self._binding: Binding | None = None
        self._run_options = self._new_run_options()
        try:
            self.provider = plugin.provider if plugin else choose(device)
            data = model if isinstance(model, bytes) else read_regular(model, LARGEST_GRAPH)
            handle = stream.handle if stream else 0
            providers = None if plugin else requested(self.provider, device_id, self.tuning, data, batch, handle)
            session = self._load_optimised(data, optimised) if optimised and self.provider == CPU else None
            self._session = session or self._load(data, providers, batch, plugin, cores)
            check(self.provider, self._session.get_providers())
            if stream is not None:
                self._binding = Binding(self._session, batch, stream)
        except ProviderError as error:
            raise SessionError(str(error)) from error
        except SessionError:
            raise
        except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
            if any(text in str(error) for text in _EXTERNAL):
                raise SessionError(
                    "model.onnx keeps weights in another file, which could change after it was checked. Save it with "
                    f"all its weights inside (onnx.save(onnx.load(path), path)). ONNX Runtime says: {error}"
                ) from error
            kind = kind_of(str(error))
            if kind is BrokenDeviceError:
                raise BrokenDeviceError(str(error)) from error
            failed = NoRoomError if kind is MemoryError else SessionError
            raise failed(f"ONNX Runtime cannot load model.onnx: {error}") from error
        self.output_names = tuple(output.name for output in self._session.get_outputs())

    @property
    def on_gpu(self) -> bool:
        """Whether the graph runs on a GPU."""
        return self.provider in GPUS

    def run(self, inputs: Tensors, fill: Fill | None = None) -> Tensors:
        """Compute all outputs. In an exported graph, the first dimension of every input and output is the batch.

        Args:
            inputs: by name.
            fill: decodes JPEGs, which only a bound session takes.

        Raises:
            RequestError: a JPEG cannot be decoded.
            MemoryError: the device has no room for inputs of this size.
            BrokenDeviceError: the device's context is gone.
        """
        with told_apart():
            if self._binding is not None:
                return self._binding.run(inputs, self._run_options, fill)
            outputs = self._session.run(self.output_names, inputs, self._run_options)
            return dict(zip(self.output_names, outputs, strict=True))

    def warm_up(self, inputs: Tensors) -> None:
        """Run once, and give back what only that run needed. Not of a bound session.

        The first run with inputs of some shape takes memory for every tensor; those that follow take one block, whose
        layout was found in that run. Without this the arena of a CPU would keep both.

        Raises:
            MemoryError, BrokenDeviceError: as in `run`.
        """
        options = self._new_run_options()
        if self.provider == CPU:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        with told_apart():
            self._session.run(self.output_names, inputs, options)

    def capture(self, inputs: Tensors) -> None:
        """Let all runs from now on replay one CUDA graph. Only of a bound session, warm, alone (`cuda.CAPTURES`).

        Raises:
            MemoryError, BrokenDeviceError: as in `run`.
        """
        self._run_options = self._new_run_options(graph=_GRAPH)
        self.run(inputs)

    def _load_optimised(self, data: bytes, optimised: Optimised) -> ort.InferenceSession | None:
        """Make the session of the optimised graph, or keep that of the session that is made; None: neither works."""
        if session := optimised.session(self._session_options()):
            return session
        options = self._session_options()
        try:
            with optimised.kept(options):
                session = ort.InferenceSession(data, options, providers=[CPU], enable_fallback=0)
        except Exception as error:  # the graph's fault, which is then found again, or that of the disk
            logger.info("the optimised graph is not kept: %s", error)
            return None
        session._model_bytes = None
        return session

    def _load(
        self, data: bytes, providers: Providers | None, batch: int, plugin: Plugin | None, cores: int
    ) -> ort.InferenceSession:
        """Make the session. Where the batch is fixed, its name is that of the input's first dimension."""
        name = "batch"  # as our exports call it; other graphs are loaded twice
        while True:
            options = self._session_options()
            if plugin:
                plugin.add_to(options, self.width.threads, cores)
            if batch:
                options.add_free_dimension_override_by_name(name, batch)
            # Without `enable_fallback=0` whatever fails is tried again on the CPU, and a run may change to it for good.
            try:
                session = ort.InferenceSession(data, options, providers=providers, enable_fallback=0)
            except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
                if not remove_engines(providers or [], str(error)):
                    raise
                continue
            session._model_bytes = None  # only the fallback needs them, and they are as large as the weights
            first = session.get_inputs()[0].shape[0] if batch else 0
            if first == batch:
                return session
            if not isinstance(first, str) or first == name:
                raise SessionError(f"the batch of model.onnx cannot be made {batch}: it is {first or 'without a name'}")
            name = first

    def _session_options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        # One thread computes where runs are side by side: they use the cores better (506 images/s instead of 289).
        options.intra_op_num_threads = self.width.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(self.width.spins)))
        options.add_session_config_entry("session.force_spinning_stop", "1")  # at the end of a run
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")  # not guessed from the bytes
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
        options.log_severity_level = 3
        self._stop.watch_session(options)
        return options

    def _new_run_options(self, graph: int = _NO_GRAPH) -> ort.RunOptions:
        options = ort.RunOptions()
        if self._bound:  # `Binding` waits, for the run and the copies behind it
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self.tuning.cuda_graphs:  # a run without a number would be captured as number 0
            options.add_run_config_entry("gpu_graph_id", str(graph))
        self._stop.watch_runs(options)
        return options
