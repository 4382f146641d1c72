"""Which licences must be accepted before a model is exported. `export` asks, `zooserve list` marks them.

Whoever serves a model under the AGPL owes its source to the users of the service; weights for non-commercial use may
not be used at work at all. Nobody should find that out afterwards: what is not known to be permissive, asks.
"""

from collections.abc import Iterable

from zoo.card import Licence
from zoo.errors import LicenceError

PERMISSIVE = frozenset(
    {
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC-BY-4.0",
        "CC0-1.0",
        "ISC",
        "LicenseRef-Darknet",  # "do what you want"
        "LicenseRef-own",  # the model belongs to those who serve it
        "LicenseRef-public-domain",
        "MIT",
        "Unlicense",
    }
)


def to_accept(licence: Licence) -> tuple[str, ...]:
    """Return the SPDX identifiers that must be accepted by name: of the code, of the weights, or none."""
    return tuple(dict.fromkeys(name for name in (licence.code, licence.weights) if name not in PERMISSIVE))


def check_accepted(model: str, licence: Licence, accepted: Iterable[str]) -> tuple[str, ...]:
    """Return the licences that the model needed accepted, for its card.json.

    Raises:
        LicenceError: one of them is not among `accepted`.
    """
    needed = to_accept(licence)
    missing = [name for name in needed if name not in frozenset(accepted)]
    if missing:
        options = " ".join(f"--accept-license {name}" for name in missing)
        raise LicenceError(
            f"{model}: its code is under {licence.code} and its weights under {licence.weights}. Read what that asks "
            f"of whoever serves it, then export it with {options}"
        )
    return needed
