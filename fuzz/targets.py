"""What is fuzzed: a parser each, with inputs to start from, what is promised of it, and what it may cost.

A promise is the same everywhere: an answer or a `RequestError` (`CardError` for cards); never another exception.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fuzz import forms, protocols
from fuzz.images import seeds
from fuzz.oracle import Limit
from service.errors import RequestError
from service.vision.decode import EncodedImage, decode
from zoo.errors import CardError
from zoo.model_card import read_model_card
from zoo.served_card import read_served_card

Seeds = Iterator[tuple[str, bytes]]
MAX_PIXELS = 1_000_000
_KEPT = Path(__file__).parent / "corpus"
_IMAGES = Limit(seconds=1.0, memory=128e6)  # a million pixels cost something, however few bytes they come in


class Target(NamedTuple):
    """One parser.

    Attributes:
        name: of the target, and of its folder in `corpus/`.
        about: what it reads, for people.
        check: parses an input; raises where a promise is broken.
        made: inputs to start from that are made here; those in `corpus/` come to them.
        modules: beginnings of the names of modules whose branches are followed.
        limit: what an input may cost.
        longest: bytes of an input.
        prepare: called once before fuzzing.
    """

    name: str
    about: str
    check: Callable[[bytes], None]
    made: Callable[[], Seeds]
    modules: tuple[str, ...]
    limit: Limit = Limit()
    longest: int = 1 << 18
    prepare: Callable[[], object] = lambda: None

    def seeds(self) -> Seeds:
        """All inputs to start from, by name."""
        yield from self.made()
        for path in sorted((_KEPT / self.name).glob("*")):
            yield path.name, path.read_bytes()


def decode_image(data: bytes) -> None:
    """Decode an image; the header's size must be that of the pixels."""
    try:
        image = EncodedImage(data, MAX_PIXELS)
        pixels = decode(data, max_pixels=MAX_PIXELS)
        if pixels.shape != (image.height, image.width, 3):
            raise AssertionError((pixels.shape, image.width, image.height))
    except RequestError:
        pass


def _image(form: str) -> Target:
    def made() -> Seeds:
        return ((name, data) for name, data in seeds() if form in name.lower())

    return Target(
        form,
        f"{form.upper()} images",
        decode_image,
        made,
        ("PIL.", "service.vision."),
        _IMAGES,
        prepare=lambda: Image.init() and None,
    )


def read_cards(data: bytes) -> None:
    """Read a file as `card.json` and as a card that a person wrote."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        for name, read in (("card.json", read_served_card), ("card.toml", read_model_card)):
            path = Path(folder, name)
            path.write_bytes(data)
            with suppress(CardError):
                read(path)


def _memory() -> str | None:
    """A folder in memory, where there is one: a disk would be worn out."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108


def _cards() -> Seeds:
    for path in sorted((Path(__file__).parents[1] / "zoo" / "cards").glob("*.toml")):
        yield path.name, path.read_bytes()


_FORMS = ("service.http.",)
_GRPC = ("service.oip.", "service.grpc.")
_V2 = ("service.oip.", "service.http.v2.body")
_CARDS = ("zoo.card", "zoo.model_card", "zoo.served_card")
_ALL = [
    *(_image(form) for form in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "avif")),
    Target("oip_json", "/v2 bodies of JSON", protocols.read_json, protocols.json_seeds, _V2),
    Target("oip_binary", "/v2 bodies with raw tensors", protocols.read_binary, protocols.binary_seeds, _V2),
    Target("grpc", "gRPC requests to infer", protocols.read_message, protocols.message_seeds, _GRPC),
    Target("multipart", "multipart forms", forms.read_multipart, forms.multipart_seeds, _FORMS),
    Target("json_images", "JSON with images", forms.read_json_images, forms.json_seeds, _FORMS),
    Target("card", "card.json and cards in TOML", read_cards, _cards, _CARDS),
]
TARGETS = {target.name: target for target in _ALL}
