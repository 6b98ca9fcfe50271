"""Self-contained HTML pages with SVG figures, for the reduction and for the report of a run."""
