"""Structure solution from merged kinematical intensities: charge flipping, symmetry, atoms."""
