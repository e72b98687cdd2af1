"""`python -m jaxclf COMMAND …`."""

import sys

from jaxclf.cli import main

if __name__ == "__main__":
    sys.exit(main())
