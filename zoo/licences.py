"""Which licences must be accepted before a model is exported. `export` checks it, `zooserve list` marks the models.

Some licences have obligations: under the AGPL, users of the service must get its source code, and weights for
non-commercial use must not be used at work. So every licence that is not known to be permissive must be accepted.
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
        "LicenseRef-own",  # the user's own model
        "LicenseRef-public-domain",
        "MIT",
        "Unlicense",
    }
)


def to_accept(licence: Licence) -> tuple[str, ...]:
    """Return the SPDX identifiers of the code's and the weights' licence that must be accepted by name."""
    return tuple(dict.fromkeys(name for name in (licence.code, licence.weights) if name not in PERMISSIVE))


def check_accepted(model: str, licence: Licence, accepted: Iterable[str]) -> tuple[str, ...]:
    """Return the licences of a model that had to be accepted, for its card.json.

    Raises:
        LicenceError: one of them is not in `accepted`.
    """
    needed = to_accept(licence)
    missing = [name for name in needed if name not in frozenset(accepted)]
    if missing:
        options = " ".join(f"--accept-license {name}" for name in missing)
        raise LicenceError(
            f"{model}: its code is under {licence.code} and its weights under {licence.weights}. Read what they "
            f"require of those who serve it, then export it with {options}"
        )
    return needed
