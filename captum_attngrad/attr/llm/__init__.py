"""Answers of language models."""
