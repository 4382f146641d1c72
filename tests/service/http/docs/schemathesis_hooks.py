"""What schemathesis sends as images: whole ones, broken ones, and bytes that never were one."""

import io

import numpy as np
import schemathesis
from hypothesis import strategies as st
from PIL import Image

from zoo import catalog


@st.composite
def images(draw: st.DrawFn, kind: str) -> bytes:
    out = io.BytesIO()
    Image.open(catalog.sample("chelsea")).convert("RGB").resize((96, 64)).save(out, kind)
    data = np.frombuffer(out.getvalue(), np.uint8).copy()
    damage = draw(st.sampled_from(["none", "bits", "cut", "noise"]))
    if damage == "bits":
        for place in draw(st.lists(st.integers(0, data.size - 1), min_size=1, max_size=8)):
            data[place] ^= draw(st.integers(1, 255))
    if damage == "noise":
        return draw(st.binary(max_size=64))
    return data.tobytes()[: draw(st.integers(0, data.size)) if damage == "cut" else None]


for kind in ("jpeg", "png", "webp"):
    schemathesis.openapi.media_type(f"image/{kind}", images(kind.upper()))
