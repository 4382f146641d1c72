"""Reading Caffe's .caffemodel and .prototxt files and rebuilding their classifiers in torch, layer by layer.

The family `export.families.caffe` calls it.
"""
