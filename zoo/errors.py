"""Errors of cards, sources and the store. Every message says what is wrong and what to do next."""


def refused_by_system(error: OSError) -> str:
    """Return the message of an operating system's error with its file: a full disk, for example."""
    what = error.strerror or str(error)
    where = error.filename2 or error.filename
    return f"{where}: {what}" if where else what


class ZooError(Exception):
    """Base class of all errors of `zoo` and `export`. The command line prints them without a traceback."""


class CardError(ZooError):
    """A card cannot be read; the message has the file and the invalid field."""


class UnknownModelError(ZooError):
    """A model's name that is not known."""


class LicenceError(ZooError):
    """A licence with obligations for those who serve the model was not accepted by name."""


class SourceError(ZooError):
    """A file could not be fetched: no route, not in the archive, or not the file that the card names."""


class StoreError(ZooError):
    """A model's folder is missing, incomplete or was changed after it was exported."""


class ExportError(ZooError):
    """A checkpoint does not fit its network, or a graph differs from its reference."""


class MissingError(ZooError):
    """A library is not installed; the message has the command that installs it."""
