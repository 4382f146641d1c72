"""All measurements on a GPU in one go: the bare session in every way, decoding, and the service over HTTP.

`GPU.md` beside this folder says how to run it, on a machine without a network too. The same code runs on a CPU.
"""
