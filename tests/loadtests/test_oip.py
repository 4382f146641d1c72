"""`python -m loadtests.oip`: what is wrong with a call is said in a sentence."""

import pytest
from click.testing import CliRunner

from loadtests.oip import main


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", "vgg99"], 1, "run `zooserve export vgg99`"),
        (["--clients", "many"], 2, "expected whole numbers from 1"),
        (["--clients", "0"], 2, "expected whole numbers from 1"),
        (["--rounds", "0"], 2, "0 is not in the range"),
    ],
)
def test_what_is_wrong_is_said(models, arguments, code, words):
    done = CliRunner().invoke(main, ["--models", str(models), *arguments])
    assert done.exit_code == code
    assert words in done.output
