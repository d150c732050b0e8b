"""Data to explain: real texts, and prompts with planted facts."""

from captum_attngrad.datasets.movie_reviews import MovieReview, MovieReviewSnippets
from captum_attngrad.datasets.planted_facts import PlantedPrompt, planted_facts
from captum_attngrad.datasets.pronouncing_dictionary import (
    DictionaryEntry,
    PronouncingDictionary,
)

__all__ = [
    "DictionaryEntry",
    "MovieReview",
    "MovieReviewSnippets",
    "PlantedPrompt",
    "PronouncingDictionary",
    "planted_facts",
]
