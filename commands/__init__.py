"""Commands that need both `export` and `service`. No module imports them."""
