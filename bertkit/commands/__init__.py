"""The commands, one a file: each reads its options, calls one function of the library, and prints."""
