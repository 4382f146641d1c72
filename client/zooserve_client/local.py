"""Servers on this machine: they are asked directly, whatever proxy the environment names."""

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit


def is_local(url: str) -> bool:
    """Whether a URL names this machine: `localhost`, 127.0.0.0/8, ::1, or and 0.0.0.0, which leads to it."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:  # a name
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def direct(url: str) -> dict[str, None]:
    """The `mounts` of an httpx client that reaches the URL's host without a proxy where it is this machine."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    return {f"all://{host}": None} if is_local(url) else {}
