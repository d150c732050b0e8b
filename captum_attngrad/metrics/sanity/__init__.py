r"""Sanity: does an explanation depend on what the model has learned?"""
