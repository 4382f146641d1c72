"""Fuzzing of everything that reads what others wrote. `python -m loadtests.fuzz --help` starts it."""
