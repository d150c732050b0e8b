"""Reading texts as a Hugging Face tokenizer and model do."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_attngrad._classes import check_class_names, whole_number
from captum_attngrad.text._outputs import outputs_of
from captum_attngrad.text._texts import Text
from captum_attngrad.text.batching import pad_batch, pad_values
from captum_attngrad.text.word_pieces import word_starts

# Tokenizers without a limit say so with a huge number.
_NO_LIMIT = 1_000_000
# What a tokenizer returns beside the tensors that only some models read.
_ALWAYS = ("input_ids", "attention_mask", "special_tokens_mask")


class Encoded(NamedTuple):
    """Texts as the tokenizer encodes them, padded on the right."""

    rows: list[list[int]]  # ids without padding
    input_ids: Tensor
    attention_mask: Tensor
    special: Tensor  # True on special tokens and padding
    extras: dict[str, Tensor]
    of_texts: frozenset[str]  # extras without a dimension of tokens
    n_cut: int  # how many texts were too long


class HuggingFaceText:
    """The parts of a ``TextModel`` that ask a Hugging Face model or tokenizer."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        class_names: Sequence[str] | None,
        max_length: int | None,
    ) -> None:
        if tokenizer.pad_token_id is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has no padding token, so texts of "
                "different lengths cannot share a batch. Set tokenizer.pad_token (and "
                "model.config.pad_token_id) first."
            )
        self.outputs = outputs_of(model)
        self.model = model
        self.tokenizer = tokenizer
        self.embedding: nn.Module = model.get_input_embeddings()
        self.pad_id = int(tokenizer.pad_token_id)
        candidates = (tokenizer.mask_token_id, tokenizer.unk_token_id, self.pad_id)
        self.replacement_id = int(next(i for i in candidates if i is not None))
        self.special_ids = tuple(sorted({int(i) for i in tokenizer.all_special_ids}))
        self.class_names = _class_names(model, class_names)
        _check_vocabulary(model, tokenizer, self.embedding, self.special_ids)
        self.max_length = _max_length(model, tokenizer, max_length)
        self._takes = _Arguments(model)
        self.extra_names = self._extra_names()
        # The value of each extra tensor if all tokens so far had the same, or None.
        self._constant: dict[str, int | None] = {}

    def _extra_names(self) -> tuple[str, ...]:
        """What the tokenizer returns for the model beside ids and mask."""
        names = dict.fromkeys(self.tokenizer("a"))
        # A tokenizer that takes no pairs says so when it gets one.
        with contextlib.suppress(Exception):
            names |= dict.fromkeys(self.tokenizer("a", "a"))
        return tuple(n for n in names if n not in _ALWAYS and self._takes(n))

    def logits(
        self, input_ids: Tensor, attention_mask: Tensor, *extras: Tensor
    ) -> Tensor:
        named = self._named(input_ids, extras)
        if self._takes("attention_mask"):
            named["attention_mask"] = attention_mask.long()
        self._check_padding(attention_mask)
        logits: Tensor = self.model(input_ids=input_ids, **named).logits
        return logits

    def _named(
        self, input_ids: Tensor, extras: tuple[Tensor, ...]
    ) -> dict[str, Tensor]:
        if extras or not self.extra_names:
            if len(extras) != len(self.extra_names):
                raise ValueError(
                    f"{len(extras)} tensors follow attention_mask; the tokenizer "
                    f"returns {', '.join(self.extra_names) or 'none'}. Pass "
                    "*batch.forward_args after batch.input_ids."
                )
            return dict(zip(self.extra_names, extras, strict=True))
        found = {}
        for name in self.extra_names:
            if name not in self._constant:  # nothing encoded: the model's own default
                continue
            value = self._constant[name]
            if value is None:
                raise ValueError(
                    f"The tokenizer returns {name} that differ between tokens, as "
                    "for sentence pairs, and the model was run without them. Pass "
                    "*batch.forward_args, or additional_forward_args="
                    "batch.forward_args, in the place of batch.attention_mask."
                )
            found[name] = torch.full_like(input_ids, value, dtype=torch.long)
        return found

    def _check_padding(self, attention_mask: Tensor) -> None:
        """Some models cannot tell padding from text, and answer for the padding."""
        last = getattr(self.model.config, "summary_type", None) == "last"
        blind = not self._takes("attention_mask")
        if (last or blind) and not bool(attention_mask.all()):
            why = (
                "reads its answer at the last position"
                if last
                else "takes no attention_mask"
            )
            raise ValueError(
                f"{type(self.model).__name__} {why}, so padding would change its "
                "answer. Give it texts of one length, as TextModel.batches does."
            )

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """Texts and pairs as the tokenizer encodes them."""
        each: list[dict[str, Any]] = [{} for _ in texts]
        for pairs in (False, True):
            places = [i for i, t in enumerate(texts) if isinstance(t, tuple) == pairs]
            if not places:
                continue
            found = self._tokenized([texts[i] for i in places], cut=True)
            for row, place in enumerate(places):
                each[place] = {name: found[name][row] for name in found}
        rows = [list(one["input_ids"]) for one in each]
        lengths = [len(row) for row in rows]
        self._check_ids(rows)
        input_ids, in_text = pad_batch(rows, self.pad_id)
        mask = in_text
        if all("attention_mask" in one for one in each):
            mask = pad_batch([one["attention_mask"] for one in each], 0)[0] != 0
        special = pad_batch([one["special_tokens_mask"] for one in each], 1)[0] != 0
        extras, of_texts = {}, set()
        for name in self.extra_names:
            if any(name not in one for one in each):
                raise ValueError(
                    f"The tokenizer returns {name} for some texts and not for others; "
                    "expected it for all."
                )
            values = [one[name] for one in each]
            padding = self.tokenizer.pad_token_type_id if "token_type" in name else 0
            extras[name], of_tokens = pad_values(name, values, lengths, padding)
            if not of_tokens:
                of_texts.add(name)
            self._remember(name, values, lengths)
        n_cut = self._n_cut(texts, rows)
        return Encoded(
            rows, input_ids, mask, special, extras, frozenset(of_texts), n_cut
        )

    def _tokenized(self, texts: Sequence[Text], cut: bool) -> dict[str, list[Any]]:
        firsts = [text[0] if isinstance(text, tuple) else text for text in texts]
        seconds = [text[1] for text in texts if isinstance(text, tuple)]
        options: dict[str, Any] = {"verbose": False}
        if cut:
            options = {
                "return_special_tokens_mask": True,
                "truncation": self.max_length is not None,
                "max_length": self.max_length,
            }
        return dict(self.tokenizer(firsts, seconds or None, **options))

    def _n_cut(self, texts: Sequence[Text], rows: list[list[int]]) -> int:
        full = [i for i, ids in enumerate(rows) if len(ids) == self.max_length]
        n_cut = 0
        for i in full:
            (whole,) = self._tokenized([texts[i]], cut=False)["input_ids"]
            n_cut += len(whole) > len(rows[i])
        return n_cut

    def _check_ids(self, rows: list[list[int]]) -> None:
        n_rows = _n_embeddings(self.embedding)
        largest = max((max(row, default=0) for row in rows), default=0)
        if n_rows is not None and largest >= n_rows:
            raise ValueError(_too_large(self.model, largest, n_rows))

    def _remember(self, name: str, values: list[Any], lengths: list[int]) -> None:
        distinct: set[Any] = set()
        for value, length in zip(values, lengths, strict=True):
            plain = value if isinstance(value, (list, tuple)) else [value]
            whole = len(plain) == length and all(isinstance(v, int) for v in plain)
            distinct |= set(plain) if whole else {None}
        if name in self._constant:
            distinct.add(self._constant[name])
        self._constant[name] = distinct.pop() if len(distinct) == 1 else None

    def show_tokens(self, ids: list[int]) -> list[str]:
        """Tokens for reading. Whatever the vocabulary, a piece that continues a word
        starts with "##", so that :func:`merge_word_pieces` finds the words."""
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        special = self.tokenizer.all_special_tokens
        starts = set(word_starts(tokens, special))
        return [
            token
            if token.startswith("##") or token in special
            else ("" if i in starts else "##")
            + (self.tokenizer.convert_tokens_to_string([token]).strip() or token)
            for i, token in enumerate(tokens)
        ]


class _Arguments:
    """Whether a model takes an argument of a name."""

    def __init__(self, model: Any) -> None:
        parameters = inspect.signature(model.forward).parameters.values()
        self._names = {parameter.name for parameter in parameters}
        self._any = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def __call__(self, name: str) -> bool:
        return self._any or name in self._names


def _n_embeddings(embedding: nn.Module) -> int | None:
    return embedding.num_embeddings if isinstance(embedding, nn.Embedding) else None


def _too_large(model: Any, largest: int, n_rows: int) -> str:
    return (
        f"The tokenizer has ids up to {largest}, and the embedding of "
        f"{type(model).__name__} has {n_rows} rows, for ids up to {n_rows - 1}: "
        "tokenizer and model do not belong together, or tokens were added without "
        "model.resize_token_embeddings(len(tokenizer))."
    )


def _check_vocabulary(
    model: Any, tokenizer: Any, embedding: nn.Module, special_ids: tuple[int, ...]
) -> None:
    try:
        vocabulary: dict[str, int] = tokenizer.get_vocab()
    except NotImplementedError:  # none that could be listed
        return
    if not set(vocabulary.values()) - set(special_ids):
        raise ValueError(
            f"{type(tokenizer).__name__} knows no tokens but its special ones, so that "
            "every word would be unknown: its vocabulary file is missing or empty."
        )
    n_rows = _n_embeddings(embedding)
    largest = max(vocabulary.values())
    if n_rows is not None and largest >= n_rows:
        raise ValueError(_too_large(model, largest, n_rows))


def _class_names(model: Any, given: Sequence[str] | None) -> tuple[str, ...]:
    n_classes = int(model.config.num_labels)
    if given is not None:
        names = check_class_names(given)
    else:
        named = model.config.id2label
        missing = [i for i in range(n_classes) if i not in named]
        if missing:
            raise ValueError(
                f"model.config.id2label has no name for class {missing[0]}; expected "
                f"names for 0 to {n_classes - 1}, or pass class_names."
            )
        names = tuple(str(named[i]) for i in range(n_classes))
    if len(names) != n_classes:
        raise ValueError(
            f"class_names has {len(names)} entries; the model has {n_classes} classes."
        )
    return names


def _max_length(model: Any, tokenizer: Any, given: int | None) -> int | None:
    if given is not None:
        if whole_number(given) is None or given < 1:
            raise ValueError(
                f"max_length is {given!r}; expected a whole number of tokens, 1 or "
                "more, or None."
            )
        return int(given)
    limits = [tokenizer.model_max_length]
    positions = getattr(model.config, "max_position_embeddings", None)
    # XLNet says -1: without a limit.
    if positions is not None and positions > 0:
        limits.append(positions)
    limit = int(min(limits))
    return limit if limit < _NO_LIMIT else None
