"""The processes of one job: which one this is, on which hardware, and how they exchange and compare numbers."""
