"""What is loaded: the repository of models, one `Model` per folder, and its self-test. Above `engine`, below `predictor`."""
