"""Networks that other frameworks describe as a list of layers, rebuilt in torch.

A reader (`export.caffe`, `export.paddle`) makes a `Step` of each layer; the families of those names build the network.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from zoo.errors import ExportError

T = TypeVar("T")


class Step(NamedTuple):
    """One layer.

    Attributes:
        inputs, outputs: names of the values that it reads and writes, often the same.
        compute: a module or function of the inputs. It returns a value for each output, or one tensor for all of them.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    compute: Callable[..., Tensor | Sequence[Tensor]]


class LayerNetwork(nn.Module):
    """Runs steps in order on an image, float32 [N, C, H, W], and returns the values called `answers`.

    Args:
        image: name of the value that is the image.
        steps: in the order in which they run.
        answers: names of the values that are returned; one of them alone is returned as a tensor.
        constants: trained values by name.
    """

    def __init__(
        self, image: str, steps: Sequence[Step], answers: Sequence[str], constants: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self._image, self._steps, self._answers = image, tuple(steps), tuple(answers)
        self.layers = nn.ModuleList(step.compute for step in self._steps if isinstance(step.compute, nn.Module))
        self._buffer_names = {name: name.replace(".", "-") for name in constants or {}}  # torch allows no dots
        for name, value in (constants or {}).items():
            self.register_buffer(self._buffer_names[name], value)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        answers = self.run(x)
        return answers if len(answers) > 1 else answers[0]

    def run(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the answers to images, float32 [N, C, H, W]."""
        values = {name: self.get_buffer(buffer) for name, buffer in self._buffer_names.items()}
        values[self._image] = x
        for step in self._steps:
            found = step.compute(*(values[name] for name in step.inputs))
            results = found if isinstance(found, Sequence) else [found] * len(step.outputs)
            values |= zip(step.outputs, results, strict=True)
        return tuple(values[name] for name in self._answers)


def known_layer(kinds: Mapping[str, T], kind: str, where: str) -> T:
    """Return what is known of a kind of layer.

    Raises:
        ExportError: nothing; the message lists the known kinds.
    """
    if kind not in kinds:
        raise ExportError(f"{where} is not known. Known are {', '.join(sorted(kinds))}")
    return kinds[kind]


def try_out(network: nn.Module, channels: int, height: int, width: int, problem: str) -> None:
    """Run a network once on a black image.

    Raises:
        ExportError: its layers do not fit together, or not that image; the message begins with `problem`.
    """
    try:
        with torch.no_grad():
            network(torch.zeros(1, channels, height, width))
    except ExportError:
        raise
    except Exception as error:  # layers that do not fit each other fail in many ways
        raise ExportError(f"{problem}: {error!r}") from error
