"""A search over settings: trials that are ordinary runs, in a folder that several processes share."""
