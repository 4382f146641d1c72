"""What the scripts of this folder have in common: repeatable arithmetic, a step, a checkpoint with its report."""

import json
import math
import platform
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zoo.files import sha256_of

FOLDER = Path(__file__).parents[1] / "checkpoints"


def out_option(name: str | None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option `--out` of a script; by default the zoo's own checkpoint called `name`, or None."""
    return click.option(
        "--out",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        callback=_to_write,
        default=name and FOLDER / f"{name}.pt",
        help="The state dict to write, with a .json beside it that says how it was made. [default: the zoo's own]",
    )


def _to_write(ctx: click.Context, param: click.Parameter, out: Path | None) -> Path | None:
    """Refuse what cannot be written after minutes of training; the callback of `--out`."""
    if out is None:
        return None
    if out.suffix == ".json":
        raise click.BadParameter(f"{out}: the report is called so, name the state dict {out.stem}.pt", ctx, param)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out.parent):
            return out
    except OSError as error:
        raise click.BadParameter(f"{out.parent} cannot be written: {error.strerror}", ctx, param) from error


def fix_seeds(seed: int) -> torch.Generator:
    """Make all that follows repeatable, and return a generator of random numbers.

    One thread: two are hardly faster for small networks, and one sums in the same order on every machine.
    """
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return a network whose weights and buffers follow those of another, each time by 1 - `decay` of the way."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]


def descend(
    loss: Tensor,
    network: nn.Module,
    optimiser: Optimizer,
    schedule: LRScheduler,
    average: AveragedModel,
    longest: float = math.inf,
) -> None:
    """Take one step down the gradient of a loss, scaled to at most the norm `longest`; the average follows."""
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if longest < math.inf:
        nn.utils.clip_grad_norm_(network.parameters(), longest)
    optimiser.step()
    schedule.step()
    average.update_parameters(network)


def save(module: nn.Module, out: Path, script: str, measured: dict[str, float]) -> None:
    """Write a network's state dict, and a report beside it.

    Args:
        module: the trained network.
        out: the file of the state dict; `.json` in place of its suffix is the report's.
        script: name of the module in this folder that trained it.
        measured: on data that was not trained on, by name.
    """
    torch.save(module.state_dict(), out)
    report = {
        "command": shlex.join(["python", "-m", f"export.training.{script}", *sys.argv[1:]]),
        **measured,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "sha256": sha256_of(out),
    }
    out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
