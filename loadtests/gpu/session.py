"""A model of the store as bare ONNX Runtime sessions, without any server. Measured by `sweep`."""

import json
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image

from loadtests.gpu.half import half
from zoo.recipe import apply_exact
from zoo.served_card import require_images
from zoo.store import Entry

Device = Literal["cpu", "cuda"]
Images = npt.NDArray[np.uint8]
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROVIDERS: dict[Device, str] = {"cpu": CPU, "cuda": CUDA}
_graphs = count(1)  # numbers of captured graphs
_DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int32)": np.int32}


class ProviderError(Exception):
    """A provider that is not truly there, with what to do."""


class Variant(NamedTuple):
    """Another way to run a graph.

    Attributes:
        name: for people.
        provider: the first that the session asks for.
        options: of that provider.
        half: the graph's float32 becomes float16.
        graph: runs are captured as CUDA graphs, one per batch size.
    """

    name: str
    provider: str = CUDA
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    half: bool = False
    graph: bool = False


def prepare(device: Device) -> str:
    """Load the libraries of a provider and return its name.

    Raises:
        ProviderError: this ONNX Runtime was built without it.
    """
    provider = PROVIDERS[device]
    if provider not in ort.get_available_providers():
        raise ProviderError(
            f"this ONNX Runtime {ort.__version__} was built without {provider}: install onnxruntime-gpu in place of "
            "onnxruntime, or give --provider cpu"
        )
    if device == "cuda":
        with suppress(ImportError):
            import torch  # noqa: F401, PLC0415 - it loads its own CUDA and cuDNN, which then serve ONNX Runtime as well
        ort.preload_dlls(directory="")  # those of the nvidia-* wheels beside onnxruntime, where torch is not there
    return provider


class Model:
    """One folder of the store: its graph, and real photos in the size that it wants."""

    def __init__(self, entry: Entry, device: Device, folder: Path) -> None:
        """Read the golden photos.

        Args:
            entry: of the store, with a card that can be read.
            device: where its sessions run: on the first GPU that is visible, or on the CPU.
            folder: for what is made of the graph: converted graphs, engines, profiles.
        """
        assert entry.card is not None  # noqa: S101 - `__main__` leaves the others out
        self.card = require_images(entry.card)
        self.path = entry.path / "model.onnx"
        self.device = device
        self.folder = folder / entry.name
        self.folder.mkdir(parents=True, exist_ok=True)
        photos = [Image.open(entry.path / "golden" / golden.photo).convert("RGB") for golden in self.card.golden]
        self._photos = np.stack([apply_exact(self.card.recipe, photo) for photo in photos])

    def images(self, batch: int) -> Images:
        """Return its golden photos over and over, uint8 [batch, H, W, 3]."""
        return np.ascontiguousarray(np.resize(self._photos, (batch, *self._photos.shape[1:])))

    def session(self, variant: Variant | None = None, *, profile: Path | None = None) -> ort.InferenceSession:
        """Load the graph.

        Args:
            variant: how; None: the provider's own defaults.
            profile: where ONNX Runtime is to write which node ran where.

        Raises:
            ProviderError: ONNX Runtime fell back to another provider.
        """
        provider, options = (variant.provider, variant.options) if variant else (PROVIDERS[self.device], {})
        path = half(self.path, self.folder) if variant and variant.half else self.path
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        if profile is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(profile)
        behind = [name for name in (CUDA, CPU) if name != provider and name in ort.get_available_providers()]
        wanted = [(provider, self._engines() | options if provider == TENSORRT else options), *behind]
        session = ort.InferenceSession(str(path), settings, providers=wanted)
        active = session.get_providers()
        if provider not in active:
            raise ProviderError(
                f"{provider} was asked for, but ONNX Runtime fell back to {active[0]}: look at the driver (nvidia-smi) "
                "and at the libraries that loadtests/GPU.md names"
            )
        return session

    def placement(self, provider: str) -> dict[str, int]:
        """Run once and count the graph's nodes by the provider that really ran them, as ONNX Runtime's profile has it.

        Raises:
            ProviderError: none ran on `provider`.
        """
        session = self.session(profile=self.folder / "profile")
        session.run(None, {"images": self.images(1)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        nodes = Counter(e["args"]["provider"] for e in events if e.get("cat") == "Node" and "provider" in e["args"])
        if not nodes[provider]:
            raise ProviderError(f"no node of {self.card.name} ran on {provider}, all on {', '.join(nodes)}")
        return dict(nodes)

    def _engines(self) -> dict[str, str]:
        """TensorRT's options: engines for batches of 1 to 64, kept while the script runs."""
        size = f"{self.card.recipe.height}x{self.card.recipe.width}x3"
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(self.folder),
            "trt_profile_min_shapes": f"images:1x{size}",
            "trt_profile_opt_shapes": f"images:8x{size}",
            "trt_profile_max_shapes": f"images:64x{size}",
        }


class Fixed:
    """Runs of one batch size on buffers that stay where they are on the device."""

    def __init__(self, session: ort.InferenceSession, images: Images, device: Device, graph: bool) -> None:
        """Bind the input and all outputs.

        Args:
            session: loaded.
            images: the batch.
            device: where the buffers lie.
            graph: runs are captured as a CUDA graph.
        """
        self._session = session
        self._images = images
        self._input = ort.OrtValue.ortvalue_from_numpy(images, device, 0)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("images", self._input)
        self._outputs = []
        for output in session.get_outputs():
            shape = (len(images), *output.shape[1:])
            value = ort.OrtValue.ortvalue_from_shape_and_type(shape, _DTYPES[output.type], device, 0)
            self._binding.bind_ortvalue_output(output.name, value)
            self._outputs.append(value)
        self._options = ort.RunOptions()
        if graph:  # a graph holds the addresses of these buffers, so nobody else may replay it
            self._options.add_run_config_entry("gpu_graph_id", str(next(_graphs)))

    def compute(self) -> None:
        """Run on what lies in the buffers."""
        self._session.run_with_iobinding(self._binding, self._options)

    def run(self) -> list[npt.NDArray[Any]]:
        """Copy the batch in, run, copy the outputs out."""
        self._input.update_inplace(self._images)
        self.compute()
        return [value.numpy() for value in self._outputs]
