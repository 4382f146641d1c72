"""`python -m service.engine_process NUMBER LISTENER`: a process that has the models, where fronts speak to clients.

`supervisor` starts it, and again whenever it ends: it stands by, with all libraries loaded, until it is told to begin,
or until the server has ended. A device that is lost, a run that does not end, or an event loop that stands still, ends
it: in a new process all are as new. It is stopped after the fronts, so that they can answer what they have begun.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress

import uvloop

from service.cores import usable_cores
from service.engine.providers import CPU, ProviderError, choose
from service.engine.workers import Workers
from service.fronts.engine import Engine
from service.fronts.memory import EngineMemory
from service.limits import allow_files
from service.runtime import Models
from service.settings import Settings, read_settings
from service.supervisor import BEGIN, end_unless_alive, end_with_supervisor, shared_counts
from service.telemetry.garbage import Pauses
from service.telemetry.logs import set_up_logs
from service.telemetry.metrics import Metrics

logger = logging.getLogger("service.engine_process")
_FILES = 65_536  # each request of large tensors is one, until it is answered
_LOOK_S = 0.25  # between two looks at whether runs end
_LAST_S = 0.2  # in which fronts are told what has failed, before a process ends that cannot go on


async def main(settings: Settings, number: int, listener: socket.socket) -> int:
    """Serve fronts until the server ends. Returns the exit code."""
    end_with_supervisor(settings)
    allow_files(_FILES)
    metrics, pauses = Metrics(shared_counts(-1 - number)), Pauses()
    workers = Workers(_threads(settings), settings.work_s)
    engine = Engine(settings.fronts, max(1, _cores(settings) // settings.fronts), EngineMemory())
    models = Models(settings, workers, metrics, assemble=engine.assemble)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl+C: the fronts are told as well, and end first
    engine.start(listener, models.repository, models.on_demand, workers, metrics)
    models.repository.load_in_background(then=pauses.freeze)
    models.on_demand.start()
    while not (ending.is_set() and not engine.connected):
        end_unless_alive(settings.stuck_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(engine.changed.wait() if ending.is_set() else ending.wait(), _LOOK_S)
        engine.changed.clear()
        longest = workers.longest()
        if models.repository.broken or 0 < settings.stuck_s < longest:
            logger.critical("the engine ends, to be started anew: %s", models.repository.broken or "a run does not end")
            await asyncio.sleep(_LAST_S)
            return 1
    return 0


def _threads(settings: Settings) -> int:
    """How many threads run batches on a CPU; on a GPU lanes do, and it computes one after the other."""
    with suppress(ProviderError):
        if choose(settings.device) != CPU:
            return 1
    return settings.threads or _cores(settings)


def _cores(settings: Settings) -> int:
    """How many cores this engine may use: it was started on those of its own, and shares the quotas with the others."""
    return usable_cores(sharing=settings.engines)


if __name__ == "__main__":
    own, fd = map(int, sys.argv[1:])
    logging.basicConfig(format=f"%(asctime)s [%(levelname)s] [engine:{own}] %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in `main`
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal: the same
    if sys.stdin.buffer.read(len(BEGIN)) != BEGIN:
        sys.exit()
    given = read_settings()
    set_up_logs(given.log, process=-1 - own)
    code = uvloop.run(main(given, own, socket.socket(fileno=fd)))
    sys.stderr.flush()
    os._exit(code)  # threads that are stuck in a run do not end
