"""The forward half: from a structure to frames on disk."""
