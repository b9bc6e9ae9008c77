"""State machines that decide and never wait: they know no clock, no event loop and no middleware."""
