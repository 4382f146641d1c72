"""Scripts that train the zoo's own networks: `python -m export.training.NAME --help`.

Each fetches or makes its data, fixes its seeds, runs for minutes on a CPU, prints what it measured on data that was not
trained on, and writes a checkpoint of less than 1 MB to `export/checkpoints/`, with a .json beside it.
"""
