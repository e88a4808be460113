"""`bertkit data prepare`: from text to shards."""
