"""Torchvision's detectors with fixed shapes: no list of images in front, no data-dependent NMS behind.

`export.families.torchvision_detection` builds them around torchvision's own networks, anchors and box coders.
"""
