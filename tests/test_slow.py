"""What `make check` and the tests that run alone leave out without importing it."""

import pytest

from tests.slow import ALONE, BY_PATH, LONGEST, ROOT, left_out


@pytest.mark.parametrize("place", sorted({*BY_PATH, *ALONE, *LONGEST}))
def test_every_place_is_there(place):
    assert (ROOT / place).exists()


@pytest.mark.parametrize(
    ("place", "expression", "expected"),
    [
        ("export", "not slow", True),
        ("export/test_code.py", "not slow", True),
        ("service/test_ports.py", "not slow", False),  # some of its tests are quick
        ("service", "not slow", False),
        ("service/test_attack_store.py", "alone", False),
        ("service", "alone", False),
        ("service/test_ports.py", "alone", True),
        ("export", "alone", True),
        (".", "alone", False),
        ("service/test_attack_store.py", "not alone", True),
        ("service", "not alone", False),
        ("service/test_ports.py", "not alone", False),
        ("export", "", False),
        ("service/test_attack_store.py", "slow", False),
    ],
)
def test_only_what_would_not_run_is_left_out(place, expression, expected):
    assert left_out(ROOT / place, expression) is expected
