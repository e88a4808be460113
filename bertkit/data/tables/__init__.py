"""Tables that users bring: rows of named cells, out of whatever format the file has."""
