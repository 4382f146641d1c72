"""How large an image may be before it is decoded. Called by `decode`."""

from typing import Final

from service.errors import Reason, RequestError

MAX_PIXELS: Final = 50_000_000
# The time of resampling grows with the square of the longer side: 50,000,000 x 1 pixels would take minutes.
_MAX_SIDE = 1 << 20


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image of more than `max_pixels` pixels, or with a side of more than 2^20 pixels.

    Raises:
        RequestError: `too_large`.
    """
    if width * height > max_pixels:
        raise RequestError(
            Reason.TOO_LARGE,
            f"The image has {width} x {height} = {width * height / 1e6:.1f} million pixels, and at most "
            f"{max_pixels / 1e6:g} million are decoded. Send a smaller one.",
        )
    if max(width, height) > _MAX_SIDE:
        raise RequestError(
            Reason.TOO_LARGE,
            f"The image has {width} x {height} pixels, and sides of at most {_MAX_SIDE} are decoded. "
            "Send a smaller one.",
        )
