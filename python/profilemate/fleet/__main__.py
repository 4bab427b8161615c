"""`python -m profilemate.fleet …` is `profilemate fleet …` where the program is not at hand."""

import sys

from profilemate.fleet.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
