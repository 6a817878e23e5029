"""What happens offline: logs in, bundles and reports out."""

import os

# Before numpy is imported: matrices here are small, and BLAS's threads would cost several times what they save.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
