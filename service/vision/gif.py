"""Reads the blocks of a GIF (GIF89a, section 15) before its first frame. Called by `decode`."""

from service.vision.refusals import corrupt, excessive

_FRAME, _EXTENSION, _TRAILER = 0x2C, 0x21, 0x3B
_CONTROL = 0xF9  # the label of the extension that says which colour is transparent
_MAX_BLOCKS = 1 << 17  # a comment of 32 MB has this many full blocks


def without_metadata(data: bytes) -> bytes:
    """Remove the blocks between the palette and the first frame, except for the last graphic control extension.

    Pillow would read these blocks in Python, one by one, and keep them in memory.

    Raises:
        RequestError: `undecodable`: no frame, or more blocks before it than 32 MB of metadata have.
    """
    start = at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    control = b""
    left = _MAX_BLOCKS
    while left > 0 and at + 1 < len(data):
        left -= 1
        introducer = data[at]
        if introducer == _FRAME:
            return data if at == start + len(control) else data[:start] + control + data[at:]
        if introducer == _TRAILER:
            break
        if introducer != _EXTENSION:  # other decoders refuse this byte, Pillow skips it
            at += 1
            continue
        if data[at + 1] == _CONTROL and data[at + 2 : at + 3] == b"\4":
            control = data[at : at + 7] + b"\0"
        at += 2
        while left > 0 and at < len(data) and (length := data[at]):
            left -= 1
            at += 1 + length
        at += 1
    if left <= 0:
        raise excessive("GIF", f"more than {_MAX_BLOCKS} blocks in front of its first frame")
    raise corrupt("GIF", "it has no frame")
