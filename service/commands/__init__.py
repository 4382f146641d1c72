"""The commands that serve, predict and reload."""
