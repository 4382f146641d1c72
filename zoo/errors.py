"""What can go wrong with cards, sources and the store. Every message says what was wrong and what to do next."""


def refused_by_system(error: OSError) -> str:
    """Say what the operating system refused, and for which file: a disk is full, a folder may not be written."""
    what = error.strerror or str(error)
    where = error.filename2 or error.filename
    return f"{where}: {what}" if where else what


class ZooError(Exception):
    """Base of all errors of `zoo` and `export`; the command line prints its text without a traceback."""


class CardError(ZooError):
    """A card that cannot be read, with the file and the field at fault."""


class UnknownModelError(ZooError):
    """A model name that no card and no pattern knows."""


class LicenceError(ZooError):
    """A licence that puts obligations on those who serve the model, and was not accepted by name."""


class SourceError(ZooError):
    """A file that could not be had: no route, not in the archive, or not the file that the card names."""


class StoreError(ZooError):
    """A model folder that is missing, incomplete or changed since it was published."""


class ExportError(ZooError):
    """A checkpoint that does not fit its network, or a graph that differs from its reference."""


class MissingError(ZooError):
    """A library that is not installed, with the command that installs it."""
