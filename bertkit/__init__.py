"""bertkit: one BERT trainer for every vendor's chip.

This package is the neutral core. It imports no framework and names no vendor: those live in plug-in
packages found through the entry-point group ``bertkit.backends``.
"""

__version__ = "0.1.0"
