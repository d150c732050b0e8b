r"""Comparisons on disk: the parts of a run, and whole comparisons."""
