"""Real data to explain."""

from captum_attngrad.datasets.movie_reviews import MovieReview, MovieReviewSnippets

__all__ = ["MovieReview", "MovieReviewSnippets"]
