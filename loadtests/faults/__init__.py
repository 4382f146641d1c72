"""What a server loses when something breaks, fault by fault, under a steady load."""
