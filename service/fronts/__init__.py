"""Front processes and the engines' processes: what they say to each other, and what each does.

A front speaks HTTP and gRPC, prepares images and makes answers. An engine has the models and runs them. An image is
prepared in a row of the model's memory, which both have mapped; the outputs of its run come back in the same row.
`memory` and `channel` are used by both, `engine` and `rows` by engines, `link`, `told`, `registry`, `balanced` and
`remote` by fronts.
"""
