"""A run from its recipe to its folder, and inference with the model that it leaves."""
