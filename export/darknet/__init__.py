"""Darknet's model files, for YOLOv3, YOLOv4 and their relatives: `cfg` and `weights` read, `network` builds.

`export.families.darknet` puts these together. A section means what it means to github.com/AlexeyAB/darknet.
"""
