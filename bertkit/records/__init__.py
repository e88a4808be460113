"""What a run measured, on what, with which settings; and the logs that are written as it goes."""
