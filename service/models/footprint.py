"""What a loaded model takes: memory of the host and of a GPU, and the time to load it.

It is measured once per machine, before the first load, in a process of its own (`python -m service.models.weigh`): in a
server, requests and other models use memory at the same time.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from service.cores import busy
from service.engine.profile_cache import key_of, recall, remember
from service.engine.providers import CPU, ProviderError, choose
from service.settings import Settings
from zoo.files import shown
from zoo.served_card import AnyServed

logger = logging.getLogger(__name__)
_LONGEST_S = 600.0  # that a measurement may take, where `load_s` sets no limit
_COPIES, _BUFFERS = 3, 16_000_000  # what is assumed of a model that could not be measured: weights, arena, buffers


class Footprint(Struct, frozen=True):
    """What one model takes.

    Attributes:
        host: bytes of this process' memory.
        device: bytes of the GPU.
        peak: bytes of this process' memory that its load needs for a moment.
        seconds: of its last load, checks and warm-up included; 0: it is not measured.
        disturbed: others used the machine; the next start measures again, if it is quiet then.
    """

    host: int = 0
    device: int = 0
    peak: int = 0
    seconds: float = 0.0
    disturbed: bool = False

    @property
    def most(self) -> int:
        """Bytes of this process' memory while it is loaded."""
        return max(self.host, self.peak)


class Footprints:
    """What each model takes.

    Args:
        settings: on which it depends.
        cores: of this process.
        device_id: of its GPU.
    """

    def __init__(self, settings: Settings, cores: int = 1, device_id: int = 0) -> None:
        self._settings, self._cores, self._device_id = settings, cores, device_id
        self._known: dict[str, Footprint] = {}  # by sha256 of the graph: the cache may not be writable

    def measure(self, card: AnyServed, folder: Path) -> Footprint:
        """Return what a model takes, and measure it first if it is not known. That takes some seconds.

        Where it cannot be measured it is estimated; the load will say why.
        """
        found = self._known.get(card.sha256)
        if found is None:
            found = recall(self._key(card), Footprint)
            if found is None or (found.disturbed and not busy()):
                found = self._weigh(card, folder)
            self._known[card.sha256] = found
        return found

    def note(self, card: AnyServed, seconds: float) -> None:
        """Note how long a load took."""
        if found := self._known.get(card.sha256):
            self._known[card.sha256] = structs.replace(found, seconds=seconds)

    def _weigh(self, card: AnyServed, folder: Path) -> Footprint:
        command = [sys.executable, "-m", "service.models.weigh", str(folder), str(self._cores), str(self._device_id)]
        command.append(str(os.getpid()))
        try:
            weighed = subprocess.run(  # noqa: S603 - ourselves
                command,
                input=msgspec.json.encode(self._settings),
                capture_output=True,
                timeout=self._settings.load_s or _LONGEST_S,
                cwd=Path(__file__).parents[2],
                check=True,
            )
            found = msgspec.json.decode(weighed.stdout, type=Footprint)
        except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
            said = getattr(error, "stderr", None) or b""
            logger.warning(
                "what %s takes is estimated: %s %s", card.name, error, shown(said[-500:].decode(errors="replace"), 500)
            )
            size = _COPIES * card.size + _BUFFERS
            return Footprint(size, 0 if self._provider() == CPU else size, size)
        remember(self._key(card), found)
        return found

    def _provider(self) -> str:
        try:
            return choose(self._settings.device)
        except ProviderError:
            return CPU

    def _key(self, card: AnyServed) -> str:
        chosen = self._settings
        parts = (chosen.max_batch, chosen.run_threads, chosen.wide_mb, chosen.plugins, chosen.prefer, chosen.pixels)
        return key_of(card.sha256, self._provider(), self._cores, "footprint", *parts, device_id=self._device_id)
