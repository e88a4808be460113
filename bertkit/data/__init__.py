"""From text to batches: features, the sampler, tasks, and pre-training data."""
