"""One process that fuzzes one target with atheris (libFuzzer), which follows the branches of our code and of libraries.

libFuzzer ends its process, whatever happens, so that the command starts one for every target.
"""

import gc
import random
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

from fuzz.oracle import judge
from fuzz.targets import TARGETS

_REPEAT = 0.03  # share of the inputs in which a piece is repeated, which libFuzzer by itself does not do
_LONGEST_PIECE = 24  # bytes
_RSS_MB = 3000


def fuzz(name: str, seconds: int, out: Path, corpus: Path) -> None:
    """Fuzz a target; this process ends with it, by exit code 0 where nothing was found.

    Args:
        name: of the target.
        seconds: how long.
        out: folder where what is found is written.
        corpus: folder with the inputs to start from, which grows.
    """
    import atheris  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra

    target = TARGETS[name]
    target.prepare()
    for function in [thing for thing in gc.get_objects() if isinstance(thing, FunctionType)]:
        if (function.__module__ or "").startswith(target.modules):
            atheris.instrument_func(function)

    def check(data: bytes) -> None:
        judge(target.check, data, target.limit)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        repeated = _repeated(data, max_size, random.Random(seed))  # noqa: S311 - it is to be the same again
        return repeated if repeated is not None else bytes(atheris.Mutate(data, max_size))

    options: list[Any] = [f"-max_total_time={seconds}", f"-artifact_prefix={out}/{name}-", f"-max_len={target.longest}"]
    options += [
        f"-rss_limit_mb={_RSS_MB}",
        "-timeout=60",
        "-report_slow_units=60",
        "-print_final_stats=1",
        "-verbosity=1",
        "-close_fd_mask=1",
    ]
    atheris.Setup([sys.argv[0], str(corpus), *options], check, custom_mutator=mutate)
    atheris.Fuzz()


def _repeated(data: bytes, max_size: int, chance: random.Random) -> bytes | None:
    """Repeat a short piece of an input, seldom to the largest size that is allowed; mostly return None."""
    if not data or chance.random() >= _REPEAT:
        return None
    start = chance.randrange(len(data))
    piece = data[start : start + chance.randint(1, _LONGEST_PIECE)]
    most = (max_size - len(data)) // len(piece)
    times = int(most ** chance.random()) if most > 0 else 0
    return data[:start] + piece * times + data[start:] if times else None
