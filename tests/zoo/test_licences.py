"""The licence gate: permissive licences pass, all others are to be accepted by name."""

import pytest

from zoo.card import Licence
from zoo.errors import LicenceError
from zoo.licences import check_accepted, to_accept


@pytest.mark.parametrize(
    ("code", "weights", "needed"),
    [
        ("MIT", "Apache-2.0", ()),
        ("LicenseRef-Darknet", "CC0-1.0", ()),
        ("MIT", "LicenseRef-own", ()),
        ("AGPL-3.0-only", "AGPL-3.0-only", ("AGPL-3.0-only",)),
        ("BSD-3-Clause", "CC-BY-NC-4.0", ("CC-BY-NC-4.0",)),
        ("GPL-3.0-only", "CC-BY-NC-4.0", ("GPL-3.0-only", "CC-BY-NC-4.0")),
        ("MIT", "LicenseRef-unknown", ("LicenseRef-unknown",)),
        ("MIT", "CC-BY-SA-4.0", ("CC-BY-SA-4.0",)),
    ],
)
def test_licences_that_are_not_permissive_must_be_accepted(code, weights, needed):
    licence = Licence(code, weights)
    assert to_accept(licence) == needed
    assert check_accepted("net", licence, needed) == needed
    for left_out in needed:
        with pytest.raises(LicenceError, match=f"net: .*--accept-license {left_out}"):
            check_accepted("net", licence, set(needed) - {left_out})
