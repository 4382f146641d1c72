"""The notebook in `docs/` runs, and says what it shows."""

import ast
import io
import json

from PIL import Image

from tests.conftest import ROOT

CELLS = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]


def run(source: str, names: dict[str, object]) -> object:
    """Run a cell; return the value of its last line, as Jupyter does."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last is not None else None


def test_every_cell_answers_as_shown(models, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ZOOSERVE_MODELS", str(models))
    names: dict[str, object] = {}
    shown = 0
    for cell in CELLS:
        if cell["cell_type"] == "code":
            value = run("".join(cell["source"]), names)
            for output in cell["outputs"]:
                shown += 1
                if "image/jpeg" in output["data"]:
                    assert Image.open(io.BytesIO(value._repr_jpeg_())).size == (600, 400)
                else:
                    assert repr(value) == "".join(output["data"]["text/plain"])
    assert shown == len([cell for cell in CELLS if cell["cell_type"] == "code"])
