"""Front processes and the engine's process: what both say to each other, and what each does.

A front speaks HTTP and gRPC, prepares images and makes answers. The engine has the models and runs them. An image is
prepared in a row of the model's memory, which both have mapped; the outputs of its run come back in the same row.
`memory` and `channel` are used by both, `engine` and `rows` by the engine, `link`, `registry` and `remote` by fronts.
"""
