"""Make the page that the README's picture shows.

    python docs/picture.py explained.html
    chromium --headless --screenshot=docs/explained.png --window-size=1150,450 \\
        explained.html
"""

from __future__ import annotations

import sys

import torch

from captum_attngrad import AttentionGradient, save_html, text_html, text_records
from captum_attngrad.models import trained_lstm

SENTENCES = {
    "The acting is wonderful, but the plot is a tired mess.": "negative",
    "A warm and funny film with a weak and predictable ending.": "positive",
    "Dull, clumsy and far too long, despite a charming lead.": "negative",
    "Beautifully shot and well acted, yet the story is boring.": "negative",
}
CLASSES = ("negative", "positive")


def main(path: str) -> None:
    trained = trained_lstm()
    method = AttentionGradient(trained.model, trained.model.attention)
    records = []
    for sentence, label in SENTENCES.items():
        tokens = trained.tokenizer(sentence)
        ids = torch.tensor([trained.vocab(tokens)])
        p, predicted = trained.model(ids).softmax(-1).detach().max(-1)
        name = CLASSES[int(predicted)]
        scores = method.attribute(ids, predicted)
        records += text_records([tokens], scores, p, [name], [label], [name])
    save_html(text_html(records), path, title="Which words spoke for the answer?")


if __name__ == "__main__":
    main(sys.argv[1])
