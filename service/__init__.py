"""What the world talks to: the gRPC edge, the use cases, and the store."""

import os

# Before numpy is imported: matrices here are small, and BLAS's threads would cost several times what they save.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
