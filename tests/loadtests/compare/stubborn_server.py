"""A small HTTP server for `test_process`; told to, it leaves a process behind that ignores SIGTERM."""

import http.server
import os
import signal
import sys
import time

if __name__ == "__main__":
    print("hello", flush=True)
    if "daemon" in os.environ:
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
        os.wait()
    address = ("127.0.0.1", int(sys.argv[1]))
    http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
