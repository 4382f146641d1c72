"""What the tests of fronts share: a store of one small model, and an engine with two fronts."""

import shutil

import pytest

from tests.service.fronts.side import sides


@pytest.fixture(scope="module")
def digits(models, tmp_path_factory):
    """A store with lenet5 alone."""
    store = tmp_path_factory.mktemp("digits")
    shutil.copytree(models / "lenet5", store / "lenet5")
    return store


@pytest.fixture(scope="module")
def digit(models):
    return (models / "lenet5/1/golden/digit_7.png").read_bytes()


@pytest.fixture(scope="module")
def two(digits):
    """An engine and two fronts, for tests that leave them as they were."""
    with sides(digits, 2) as both:
        yield both
