"""Measurements of Epigraph against what people use today, side by side in one run."""
