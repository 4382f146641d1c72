"""The simulated GPU of the engine's tests, for the GPU script."""

from tests.service.engine.conftest import cuda_stub

__all__ = ["cuda_stub"]
