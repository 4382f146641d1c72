"""`python -m commands.originals`: compares served models with the checkpoints' own libraries."""
