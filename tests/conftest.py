"""What all tests share."""

import os

# Waiting OpenMP threads otherwise spin, and a busy neighbour on the same cores makes a small network 50 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
