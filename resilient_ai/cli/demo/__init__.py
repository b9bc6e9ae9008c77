"""A tour of the client against a simulated service, or against the real one."""
