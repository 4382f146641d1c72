"""Photos without known content, beside the samples: what int8 variants are calibrated on and recipes are compared on.

`export.variant` and `loadtests.decode_recipes` fetch them. They are fetched like any source and never passed on.
"""

from pathlib import Path

from zoo.catalog import sample
from zoo.model_card import Source, read_toml
from zoo.sources import fetch_all

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower")


def fetch_photos(*, progress: bool = True) -> dict[str, Path]:
    """Fetch all photos, the zoo's photographic samples among them, and return their paths by name, sorted by name.

    Raises:
        SourceError: one of them cannot be fetched.
    """
    sources = read_toml(Path(__file__).with_name("photos.toml"), dict[str, Source])
    found = {name: sample(name, progress=progress) for name in SAMPLES}
    found |= fetch_all(sources, progress=progress)
    return dict(sorted(found.items()))
