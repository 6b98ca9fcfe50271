"""Named random streams: one frame's draws never depend on how many frames or workers ran before."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def stream(root: int, *key: str | int) -> np.random.Generator:
    """Same (root, key), same draws, whatever ran before."""
    digest = hashlib.sha256(json.dumps([root, *key]).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
