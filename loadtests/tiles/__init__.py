"""Tiles of a large image against a bare loop over the same tiles: `python -m loadtests.tiles --help`."""
