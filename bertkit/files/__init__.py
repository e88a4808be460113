"""Reading and writing files, whole or not at all; locks, standard streams, and files fetched from elsewhere."""
