"""How fast a running server answers at some loads: `python -m loadtests.measure`."""
