"""Every setting of a run, where it came from, and the packaged recipes."""
