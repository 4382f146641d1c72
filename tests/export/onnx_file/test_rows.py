"""Rows that are counted from cells become boxes in pixels, as YOLOX's own code makes them."""

import numpy as np
import onnxruntime
import pytest

from export.onnx_file.rows import Layout, decode_rows

SIZE = (64, 96)
YOLOX = Layout({"centres": 4, "objectness": 1, "scores": 2}, in_cells=True)


def test_a_row_for_each_cell():
    """Rows run over the cells of a stride from left to right, then down; then over those of the next stride."""
    rows = np.random.default_rng(0).normal(0, 1, (2, 126, 7)).astype(np.float32)
    session = onnxruntime.InferenceSession(decode_rows(YOLOX, SIZE, 0).SerializeToString())
    boxes, scores = session.run(["boxes", "scores"], {"decode/rows": rows})
    np.testing.assert_allclose(scores, rows[..., 4:5] * rows[..., 5:], atol=1e-6)
    row = 0
    for stride in (8, 16, 32):
        for y in range(0, SIZE[0], stride):
            for x in range(0, SIZE[1], stride):
                centre = np.array([x, y]) + rows[:, row, :2] * stride
                half = np.exp(rows[:, row, 2:4]) * stride / 2
                np.testing.assert_allclose(
                    boxes[:, row], np.hstack([centre - half, centre + half]), rtol=1e-5, atol=1e-4
                )
                row += 1
    assert row == 126


@pytest.mark.parametrize(("shape", "fits"), [((1, 126, 7), True), ((1, 24, 7), False), ((1, 126, 8), False)])
def test_only_as_many_rows_as_cells_fit(shape, fits):
    assert YOLOX.fits(shape, SIZE) == fits
