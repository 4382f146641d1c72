"""Commands that need both `export` and `service`; nothing imports them."""
