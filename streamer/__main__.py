"""`python -m streamer` and the command `streamer`."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line, which takes a second to load: an interrupt in it is one line too."""
    try:
        from streamer.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; no unfinished file was left\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
