"""MLPerf LoadGen against the HTTP service: SingleStream, Server and Offline, and the highest Server rate in bounds.

LoadGen decides when a query is due and measures when it is complete. `sut` hands it on to `sender` processes, which
send it as an HTTP request and look whether the answer is right.
"""
