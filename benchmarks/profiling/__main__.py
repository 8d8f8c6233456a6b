"""`python -m benchmarks.profiling PACKAGE`: see `benchmarks.profiling.report`."""

import sys

from benchmarks.profiling.report import main

sys.exit(main())
