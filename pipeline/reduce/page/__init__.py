"""What a user sees of a reduction: the numbers that matter in a few lines, and a page of figures."""
