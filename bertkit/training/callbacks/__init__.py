"""Callbacks: what follows a run. `base` has the class to derive from, the other files those that bertkit uses."""
