"""`python -m profilemate …` is the program `profilemate …` of this environment."""

import os
import sys

from profilemate import program

if __name__ == "__main__":
    path = str(program())
    os.execv(path, [path, *sys.argv[1:]])
