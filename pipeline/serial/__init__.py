"""Serial data: still frames of many particles, each oriented on its own by templates, then merged."""
