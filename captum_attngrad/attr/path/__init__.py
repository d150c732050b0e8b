"""Attributions along a path from no attention, or a baseline, to the input."""
