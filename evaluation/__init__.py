"""Evaluates a model on a dataset through the same predictor that serves it; for `zooserve eval`.

A dataset has `Example`s, and its judge compares each with its answer. `run` calls the predictor on all cores.
"""
