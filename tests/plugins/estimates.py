"""An input scan, a profile and two clusters, as tests of estimates need them."""

import numpy as np

from pipeline.estimate.cost import Cluster
from pipeline.estimate.profile import Profile
from pipeline.estimate.scan import InputScan

SCAN = InputScan(
    listed=1_000_000,
    known=0,
    retried=0,
    left_out={},
    new=1_000_000,
    bytes=10**11,
    sized=1_000_000,
    copies=None,
    in_files=0,
    repost_share=None,
    sample=[],
    kept={},
)
PROFILE = Profile(
    status={"ok": 64},
    failures=[],
    bytes=np.full(64, 10**5),
    fetch_core=0.001,
    fetch_wait=0.01,
    decode=np.full(64, 0.004),
    annotate=0.005,
    device="cpu",
    cores=2,
    batch_size=8,
)
CPUS, GPUS = Cluster(16, 0, 1.0), Cluster(16, 2, 4.0)
