"""`python -m splitmerge`."""

import sys

from splitmerge.cli import main

sys.exit(main())
