"""How good a served model is: datasets, measures and images, through the predictor that serves; for `zooserve eval`.

A dataset gives `Example`s, its judge compares each with the answer, and `run` asks the predictor on all cores.
"""
