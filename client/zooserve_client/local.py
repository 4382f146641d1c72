"""Servers on this machine are reached directly, without the proxies that the environment sets."""

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit


def is_local(url: str) -> bool:
    """Return whether a URL's host is this machine: `localhost`, 127.0.0.0/8, ::1, or 0.0.0.0, which connects to it."""
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
    """Return the `mounts` with which an httpx client uses no proxy for the URL's host if that is this machine."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    return {f"all://{host}": None} if is_local(url) else {}
