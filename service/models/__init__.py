"""Loaded models: the repository, one `Model` per folder, and its self-test. Uses `engine`; `predictor` uses it."""
