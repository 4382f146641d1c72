"""zooserve beside its peers and beside the bare loop, in one run: `python -m loadtests.compare --help`."""
