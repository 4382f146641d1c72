"""The scripts fix seeds and threads for the whole process: tests undo that."""

import pytest
import torch


@pytest.fixture(autouse=True)
def torch_as_before():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
