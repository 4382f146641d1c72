"""How many bytes of bodies the server holds in all, whoever sent them. `http.connections` keeps the account."""


class Bodies:
    """The bodies of all requests of a process that are read, or read and not answered yet.

    A body counts as it arrives, not as it is announced: whoever announces much and sends nothing takes nothing away.
    `held` is counted up and down by the connections themselves.

    Attributes:
        limit: bytes.
        held: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def room_for(self, length: int) -> bool:
        """Whether a body of so many bytes may begin. The largest that is served may, where there is no other."""
        return not self.held or self.held + length <= self.limit
