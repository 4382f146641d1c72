"""Locust's users of the service: what they ask, how long they think, how many there are. `locustfile` runs them."""
