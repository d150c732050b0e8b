r"""Consistency: do the same words explain texts of the same class?"""
