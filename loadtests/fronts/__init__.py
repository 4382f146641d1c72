"""What front processes cost and stand, with a GPU that is none; see `python -m loadtests.fronts --help`."""
