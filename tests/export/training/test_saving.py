"""Where the scripts write, which is found out before they train."""

from importlib import import_module

import pytest
from click.testing import CliRunner


@pytest.mark.parametrize("script", ["char_lstm", "digits_gan", "lenet5", "steering", "style"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net.json", "the report is called so, name the state dict net.pt"),
        ("file/net.pt", "file cannot be written: "),
        ("file/sub/net.pt", "sub cannot be written: Not a directory"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_trained(script, name, said, tmp_path):
    (tmp_path / "file").touch()
    arguments = ["brick"] if script == "style" else []
    main = import_module(f"export.training.{script}").main
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / name)])
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.replace("│", "").split())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
