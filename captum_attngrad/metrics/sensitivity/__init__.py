r"""Sensitivity: does an explanation react to attacks, and only to them?"""
