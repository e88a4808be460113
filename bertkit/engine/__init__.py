"""The seam between bertkit and any framework: what an engine computes and how batches are laid out for it."""
