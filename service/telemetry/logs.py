"""The service's log: text or JSON, with one line per request if `ZOOSERVE_ACCESS_LOG` is set.

`runtime` sets it up in every server process. No line contains an image's bytes or a key.
"""

import logging
from collections.abc import Mapping

from pythonjsonlogger.json import JsonFormatter

PARENT = None
"""In place of a number: of the process that starts the server's processes."""

_access = logging.getLogger("service.access")


def set_up_logs(form: str, *, process: int | None) -> None:
    """Enable our loggers, and make BentoML's handlers print JSON if that is chosen.

    Args:
        form: `text` keeps BentoML's format, `json` prints one object per line.
        process: number of this server process, a field of the objects; `PARENT` has none.
    """
    # BentoML's handlers print what we log, but it sets every logger except its own to WARNING.
    logging.getLogger("service").setLevel(logging.INFO)
    if form != "json":
        return
    formatter = JsonFormatter(
        "{levelname}{name}{message}",
        style="{",
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
        static_fields={} if process is PARENT else {"process": process},
    )
    loggers = (logging.getLogger(), *(logging.getLogger(name) for name in ("bentoml", "circus", "uvicorn")))
    for logger in loggers:
        for handler in logger.handlers:
            handler.filters.clear()  # BentoML's filter would replace our request id
            handler.setFormatter(formatter)


def set_up_parent_logs(form: str) -> None:
    """Enable the log of the process that starts the others: who was started again, and what could not be started.

    BentoML disables all loggers there that exist when it starts a server, and gives the root logger no handler.

    Args:
        form: see `set_up_logs`.
    """
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "service":
            logger.disabled = False
    logging.basicConfig(format="%(asctime)s [%(levelname)s] [parent] %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z")
    if form == "json":  # BentoML's own lines have handlers that print text, a warning both of them
        bentoml = logging.getLogger("bentoml")
        bentoml.handlers.clear()
        bentoml.propagate = True
    set_up_logs(form, process=PARENT)


def log_request(fields: Mapping[str, object]) -> None:
    """Log one request: in text as `name=value` pairs, in JSON as an object with these fields."""
    _access.info("request %s", " ".join(f"{name}={value}" for name, value in fields.items()), extra=fields)
