"""The errors of image files that are not decoded. Called by `decode` and the modules that read headers."""

from service.errors import Reason, RequestError


def corrupt(form: str, why: str) -> RequestError:
    """Make the error for a damaged or incomplete file of a format; `why` is a clause."""
    return RequestError(Reason.UNDECODABLE, f"The {form} is cut off or corrupt ({why}). Send the whole file again.")


def excessive(form: str, what: str) -> RequestError:
    """Make the error for a file with something that encoders do not write, such as thousands of segments."""
    return RequestError(Reason.UNDECODABLE, f"The {form} has {what}. Encode the image again.")
