"""`python -m difflate`."""

import sys

from difflate.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
