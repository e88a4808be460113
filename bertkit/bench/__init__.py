"""What `bertkit bench` does: a plan of cases, each measured in an engine of its own, and what is shown and kept."""
