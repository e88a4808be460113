"""``python -m bertkit``: the same as the command ``bertkit``."""

from bertkit.cli.main import main

if __name__ == "__main__":
    main()
