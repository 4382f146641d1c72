"""All measurements on a GPU in one go: `python -m loadtests.gpu`, in eight steps, each in processes of its own.

`GPU.md` beside this folder says how to run it, on a machine without a network too.
"""
