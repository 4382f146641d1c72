"""What is loaded: the repository, one `Model` per folder, and its self-test. Above `engine`, below `predictor`."""
