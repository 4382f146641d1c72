"""The image's health check: ends with 0 where `/livez` answers 200, over TLS where the server speaks it.

By http.client, which knows no proxies: a container may be given one by `http_proxy`. The certificate is not checked: it
is for another name than the loopback's. Of a server that asks for clients' certificates (`ZOOSERVE_TLS_CLIENTS`) only
the handshake is asked for: its event loop runs, and it would refuse a request without one.
"""

import http.client
import os
import ssl
import sys


def healthy(port: int, *, tls: bool, asks_for_certificates: bool) -> bool:
    """Ask the server of this container."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=4, context=context)
    try:
        connection.connect()
        if asks_for_certificates:
            return True
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


if __name__ == "__main__":
    given = os.environ
    tls, clients = (bool(given.get(f"ZOOSERVE_TLS_{name}")) for name in ("CERTIFICATE", "CLIENTS"))
    sys.exit(not healthy(int(given.get("PORT", "3000")), tls=tls, asks_for_certificates=tls and clients))
