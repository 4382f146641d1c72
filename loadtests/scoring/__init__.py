"""`zooserve score`, on this machine and on a Ray cluster of two nodes: its throughput, and what survives a kill."""
