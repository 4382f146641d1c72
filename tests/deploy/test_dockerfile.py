"""The Dockerfile, without building it: `test_image.py` builds its CPU image."""

import re

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "deploy" / "Dockerfile").read_text()
STAGES = {stage.split()[-1]: lines for stage, lines in re.findall(r"^FROM (.*)\n((?:(?!FROM ).*\n)*)", TEXT, re.M)}


@pytest.mark.parametrize("target", ["cpu", "gpu", "export"])
def test_every_image_says_what_it_is(target):
    for label in ("title", "description", "licenses", "source", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{label}=" in STAGES[target]


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_layers_are_in_the_order_of_their_rate_of_change(target):
    assert re.findall(r"^COPY --from=(\S+)", STAGES[target], re.M) == [f"install-{target}", "models", "code"]


@pytest.mark.parametrize("stage", ["code", "models-default", "models-none"])
def test_what_is_the_same_for_all_processors_is_made_without_emulation(stage):
    assert re.search(rf"^FROM native AS {stage}$", TEXT, re.M)
    assert re.search(r"^FROM --platform=\$BUILDPLATFORM \S+ AS native$", TEXT, re.M)


def test_no_image_chooses_the_gpus_of_its_container():
    assert "NVIDIA_VISIBLE_DEVICES" not in TEXT
