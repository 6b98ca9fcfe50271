"""From frames to intensities: peaks, cell, orientation, distortion, integration, merging."""
