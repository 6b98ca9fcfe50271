"""nanoed: simulate 3D electron diffraction, reduce and refine it, and compare with the truth."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("nanoed")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"
