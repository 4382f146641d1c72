"""Reading PaddlePaddle's inference models (.pdmodel and .pdiparams) and running them in torch, operator by operator.

The family `export.families.paddle` calls it. PaddlePaddle itself is not needed.
"""
