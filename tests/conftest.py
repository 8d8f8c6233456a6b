"""What all tests share."""

import os
import signal

# Waiting OpenMP threads otherwise spin, and a busy neighbour on the same cores makes a small network 50 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell's background job ignores Ctrl-C, and the tests that send one would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
