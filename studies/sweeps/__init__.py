"""Studies: grids of cases, their runs on many processor cores, and what the results say.

Nothing here decides a number of a run; `studies.run` does, and its key does not depend on this folder.
"""
