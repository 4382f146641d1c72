"""Arrays in, arrays out, as fast as the machine allows: sessions, the queue, measured profiles, loaded folders."""
