"""How fast, how sure: load on a service over HTTP, and what came of it."""
