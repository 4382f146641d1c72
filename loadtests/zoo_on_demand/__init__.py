"""A zoo that is larger than its budget for memory."""
