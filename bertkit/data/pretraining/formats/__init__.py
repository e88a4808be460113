"""Files of pre-training data, and the sequences in them."""
