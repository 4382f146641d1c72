"""Ultralytics' checkpoints, read without running their code, and their networks with a decoding that converts.

The family `export.families.ultralytics` calls it.
"""
