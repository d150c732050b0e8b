r"""Resilience: do the scores stay the same when the model's answer does?"""
