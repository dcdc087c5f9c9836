import os

# Before torch is there: on tensors as small as these, threads only wait for each other, for minutes where other programs run too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
