"""A software stand-in of the vendor's package, for tests alone. It computes on the CPU."""
