r"""Faithfulness: does masking tokens affect the model as their scores say?"""
