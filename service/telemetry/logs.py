"""What the service logs: text for people or JSON for machines, and one line per request where that is asked for.

`runtime` sets it up in every server process. No line holds an image's bytes or a key.
"""

import logging
from collections.abc import Mapping

from pythonjsonlogger.json import JsonFormatter

_access = logging.getLogger("service.access")


def set_up_logs(form: str, *, process: int) -> None:
    """Let our loggers speak, and BentoML's handlers print JSON where that is wanted.

    Args:
        form: `text` keeps BentoML's form, `json` prints one object per line.
        process: number of this server process, for the lines.
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
        static_fields={"process": process},
    )
    loggers = (logging.getLogger(), *(logging.getLogger(name) for name in ("bentoml", "circus", "uvicorn")))
    for logger in loggers:
        for handler in logger.handlers:
            handler.filters.clear()  # BentoML's puts its own request id over ours
            handler.setFormatter(formatter)


def log_request(fields: Mapping[str, object]) -> None:
    """Log one request: as text a line of `name=value`, as JSON an object with these fields."""
    _access.info("request %s", " ".join(f"{name}={value}" for name, value in fields.items()), extra=fields)
