"""Real data to explain."""

from captum_attngrad.datasets.movie_reviews import MovieReview, MovieReviewSnippets
from captum_attngrad.datasets.pronouncing_dictionary import (
    DictionaryEntry,
    PronouncingDictionary,
)

__all__ = [
    "DictionaryEntry",
    "MovieReview",
    "MovieReviewSnippets",
    "PronouncingDictionary",
]
