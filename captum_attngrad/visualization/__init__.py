r"""Showing scores: words on pages and in Captum's ``visualize_text``, and charts."""

from captum_attngrad.text.word_pieces import merge_word_pieces
from captum_attngrad.visualization.alignment import plot_alignment
from captum_attngrad.visualization.answer import answer_page, save_answer_html
from captum_attngrad.visualization.heads import plot_heads
from captum_attngrad.visualization.page import save_html, write_page
from captum_attngrad.visualization.text import text_html, text_records
from captum_attngrad.visualization.token_scores import plot_token_scores

__all__ = [
    "answer_page",
    "merge_word_pieces",
    "plot_alignment",
    "plot_heads",
    "plot_token_scores",
    "save_answer_html",
    "save_html",
    "text_html",
    "text_records",
    "write_page",
]
