"""Conversion of any colour mode to RGB. Most modes are tested with `decode`, through files."""

import pytest
from PIL import Image

from service.errors import RequestError
from service.vision.colours import to_rgb


def test_colours_that_cannot_be_converted_are_refused():
    image = Image.new("P", (8, 8))
    image.info["transparency"] = "half"
    with pytest.raises(RequestError, match="mode P"):
        to_rgb(image)
