"""Fuzzing of everything that reads what others wrote. `python -m fuzz --help` starts it."""
