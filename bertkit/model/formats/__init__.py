"""Weights of every system, read as one thing and converted to each other's forms."""
