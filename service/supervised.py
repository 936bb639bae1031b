"""A command as `tidemill up` runs it: `python -m service.supervised trainer`.

It differs in one exit code: whoever starts it again when it dies is told when that would be of no use.
"""

import sys

from service.cli import main
from service.process import UNMENDABLE

if __name__ == "__main__":
    sys.exit(main(unmendable=UNMENDABLE))
