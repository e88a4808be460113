"""SQuAD 1.1 and 2.0: the published JSON read strictly, and the official metrics."""
