"""Answers many images with one model and writes the answers as files: on this machine, or on a Ray cluster.

`zooserve score` is the command. A plan lists the images in parts; each part is answered by one process and becomes one
file. What has its file is done, so the same command continues after any end.
"""
