"""The inverse half: from frames to a refined structure, blind to the truth."""
