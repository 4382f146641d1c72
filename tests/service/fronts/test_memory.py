"""The outputs of a row are copied, whatever their size, type and shape."""

import numpy as np
import pytest

from service.fronts.memory import Layout, ModelMemory, layout_of


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("float32", (1000,)),
        ("int64", ()),
        ("uint8", (3, 5)),
        ("bool", (7,)),
        ("float16", (0, 4)),
        ("float32", (4, 99, 99)),
    ],
)
def test_a_row_is_copied(dtype, shape):
    value = np.arange(6 * np.prod(shape, dtype=int)).reshape(6, *shape).astype(dtype)
    memory = ModelMemory(Layout(2, 3, 1, (2, 2, 3), layout_of({"other": np.zeros((6, 5)), "one": value})))
    memory.outputs["one"][:] = value
    for row in range(6):
        copy = memory.row_of(row)["one"]
        assert copy.dtype == value.dtype
        assert copy.shape == (1, *shape)
        assert np.array_equal(copy[0], value[row])
        assert copy.flags.writeable
        copy.fill(1)
    assert np.array_equal(memory.outputs["one"], value)
