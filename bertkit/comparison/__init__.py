"""Runs side by side: what differs that should not comes first, then figures with their spread, then plots."""
