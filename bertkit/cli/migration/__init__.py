"""Old command lines of the reference systems, read and said again in bertkit's words.

words: the line taken apart. ours: our command put together. The rest reads one family of programs each.
"""
