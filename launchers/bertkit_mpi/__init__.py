"""MPI: collectives between ranks that MPI started. Importing it imports no mpi4py."""
