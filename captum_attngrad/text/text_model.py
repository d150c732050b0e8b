r"""A text classifier as methods and metrics see it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_attngrad._classes import check_class_names
from captum_attngrad.capture._surroundings.threads import hooked
from captum_attngrad.text._huggingface import HuggingFaceText
from captum_attngrad.text._outputs import ONE_CLASS, Outputs
from captum_attngrad.text._padding import depends_on_padding
from captum_attngrad.text._texts import (
    Text,
    check_not_empty,
    check_texts,
    single_texts,
)
from captum_attngrad.text.batching import by_length, pad_batch
from captum_attngrad.text.text_batch import TextBatch

#: Tokens, padding counted, in one batch of texts to explain.
DEFAULT_TOKENS_PER_BATCH = 512


@dataclass(frozen=True)
class TextModel:
    r"""
    A text classifier with what it takes to explain it: from texts to ids, from ids or
    embeddings to logits, and its embedding and attention layers. Made by
    :meth:`from_torch` or :meth:`from_huggingface`.

    Args:
        model (nn.Module): The classifier.
        logits (Callable): Maps (input_ids, attention_mask), and what follows in
            :attr:`TextBatch.forward_args`, to logits (batch, classes).
        encode (Callable): Maps texts to a :class:`TextBatch` on the CPU.
        replacement_id (int): Token id that takes the place of a masked token.
        embedding (nn.Module): The module that embeds token ids.
        attention_layers (nn.Module or list of nn.Module): The modules whose attention
            is explained. Attention at any depth inside them counts, so ``model`` itself
            stands for all of its attention.
        class_names (tuple of str): Names of the classes, in the order of the logits.
        pad_id (int): Token id that fills up short texts.
        special_ids (tuple of int): Ids that never take the place of a word: padding,
            unknown, mask and the like.
        show_tokens (Callable): Maps a list of ids to the tokens as they are shown.
        outputs (Outputs): How logits are read: one class is right (softmax), or any
            number of labels (sigmoids).
            Default: ONE_CLASS
    """

    model: nn.Module
    logits: Callable[..., Tensor]
    encode: Callable[[Sequence[Text]], TextBatch]
    replacement_id: int
    embedding: nn.Module
    attention_layers: nn.Module | list[nn.Module]
    class_names: tuple[str, ...]
    pad_id: int
    special_ids: tuple[int, ...]
    show_tokens: Callable[[list[int]], list[str]]
    outputs: Outputs = ONE_CLASS

    @classmethod
    def from_torch(
        cls,
        model: nn.Module,
        tokenizer: Callable[[str], Sequence[str]],
        vocab: Callable[[list[str]], Sequence[int]],
        *,
        embedding: nn.Module,
        attention_layers: nn.Module | list[nn.Module] | None = None,
        forward_func: Callable[[Tensor, Tensor], Tensor] | None = None,
        class_names: Sequence[str] = ("negative", "positive"),
        unk_token: str = "<unk>",
        pad_token: str = "<pad>",
    ) -> TextModel:
        r"""
        Wraps a PyTorch classifier with a tokenizer and a vocabulary; those of torchtext
        fit as they are.

        Args:
            model (nn.Module): The classifier.
            tokenizer (Callable): Splits a text into tokens.
            vocab (Callable): Maps a list of tokens to a list of ids.
            embedding (nn.Module): The submodule that embeds the ids.
            attention_layers (nn.Module or list of nn.Module, optional): The submodules
                whose attention is explained, at any depth inside them.
                Default: None, every attention layer of ``model``
            forward_func (Callable, optional): Maps (input_ids, attention_mask) to
                logits (batch, classes), where the mask is boolean, True on tokens.
                None calls ``model(input_ids, attention_mask)``.
                Default: None
            class_names (Sequence of str): Names of the classes.
                Default: ("negative", "positive")
            unk_token (str): Token that takes the place of masked tokens.
                Default: "<unk>"
            pad_token (str): Token that fills up short texts.
                Default: "<pad>"

        Returns:
            *TextModel*

        Raises:
            TypeError: If ``class_names`` is a string or holds something else.
            ValueError: When a text without tokens or a pair of texts is encoded, or the
                model's logits are not as many as ``class_names``.

        Examples::

            >>> text_model = TextModel.from_torch(
            ...     model, WordTokenizer(), vocab,
            ...     embedding=model.embedding,
            ...     attention_layers=model.attention,
            ... )
            >>> compare(text_model, ["A fine film.", "It drags on."])
        """
        unk_id, pad_id = vocab([unk_token, pad_token])
        seen: dict[int, str] = {unk_id: unk_token, pad_id: pad_token}

        def show_tokens(ids: list[int]) -> list[str]:
            # torchtext's own Vocab has lookup_tokens, and so has the one here.
            lookup = getattr(vocab, "lookup_tokens", None)
            if lookup is not None:
                return list(lookup(ids))
            return [seen.get(i, f"[{i}]") for i in ids]

        def encode(texts: Sequence[Text]) -> TextBatch:
            tokens = tuple(tuple(tokenizer(text)) for text in single_texts(texts))
            check_not_empty(texts, [len(found) for found in tokens])
            rows = [list(vocab(list(found))) for found in tokens]
            for row, found in zip(rows, tokens, strict=True):
                for i, token in zip(row, found, strict=True):
                    seen.setdefault(i, token)
            ids, mask = pad_batch(rows, pad_id)
            return TextBatch(tokens, ids, mask, mask, (0,) * len(tokens))

        return cls(
            model=model,
            logits=forward_func if forward_func is not None else model,
            encode=encode,
            replacement_id=unk_id,
            embedding=embedding,
            attention_layers=model if attention_layers is None else attention_layers,
            class_names=check_class_names(class_names),
            pad_id=pad_id,
            special_ids=tuple(sorted({unk_id, pad_id})),
            show_tokens=show_tokens,
        )

    @classmethod
    def from_huggingface(
        cls,
        model: Any,
        tokenizer: Any,
        *,
        attention_layers: nn.Module | list[nn.Module] | None = None,
        class_names: Sequence[str] | None = None,
        max_length: int | None = None,
    ) -> TextModel:
        r"""
        Wraps a Hugging Face sequence classifier.

        Special tokens such as ``[CLS]`` and ``[SEP]`` are neither scored nor masked. A
        masked token becomes the mask token, or else the unknown or the padding token.
        Tokens are shown as the tokenizer's word pieces, with ``##`` before a piece that
        continues a word.

        A text may be a pair (first, second), such as a premise and a hypothesis. What
        the tokenizer returns beside ids and mask, such as ``token_type_ids``, goes to
        the model as well: it stands in :attr:`TextBatch.extras`, and
        ``text_model.logits(batch.input_ids, *batch.forward_args)`` is the model's own
        answer. ``config.problem_type`` says whether probabilities are a softmax or, for
        multi-label models, a sigmoid for each label.

        Args:
            model (PreTrainedModel): A sequence classifier: its output has ``logits`` of
                shape (batch, classes).
            tokenizer (PreTrainedTokenizerBase): Its tokenizer, with a padding token.
            attention_layers (nn.Module or list of nn.Module, optional): The submodules
                whose attention is explained, at any depth inside them.
                Default: None, every attention layer of ``model``
            class_names (Sequence of str, optional): Names of the classes; None takes
                ``model.config.id2label``.
                Default: None
            max_length (int, optional): Longer texts are cut to so many tokens, with a
                warning; None takes the most that tokenizer and model allow.
                Default: None

        Returns:
            *TextModel*

        Raises:
            ValueError: If the tokenizer has no padding token, knows no words or knows
                ids that the model does not embed, the model is a regression model or
                has fewer than two classes, ``class_names`` are not as many as those;
                and when a text without tokens is encoded.

        Examples::

            >>> text_model = TextModel.from_huggingface(model, tokenizer)
            >>> compare(text_model, ["A fine film.", "It drags on."])
        """
        text = HuggingFaceText(model, tokenizer, class_names, max_length)

        def encode(texts: Sequence[Text]) -> TextBatch:
            checked = check_texts(texts)
            found = text.encode(checked)
            if found.n_cut:
                warnings.warn(
                    f"{found.n_cut} of {len(texts)} texts are longer than "
                    f"{text.max_length} tokens and were cut to that length.",
                    stacklevel=2,
                )
            free = ~found.special
            check_not_empty(checked, free.sum(dim=1).tolist())
            return TextBatch(
                tokens=tuple(tuple(text.show_tokens(row)) for row in found.rows),
                input_ids=found.input_ids,
                attention_mask=found.attention_mask,
                attributable=free & found.attention_mask,
                seeds=(0,) * len(found.rows),
                extras=found.extras,
                of_texts=found.of_texts,
            )

        return cls(
            model=model,
            logits=text.logits,
            encode=encode,
            replacement_id=text.replacement_id,
            embedding=text.embedding,
            attention_layers=model if attention_layers is None else attention_layers,
            class_names=text.class_names,
            pad_id=text.pad_id,
            special_ids=text.special_ids,
            show_tokens=text.show_tokens,
            outputs=text.outputs,
        )

    @property
    def device(self) -> torch.device:
        """The device of the embedding's weights."""
        return next(self.embedding.parameters()).device

    def batch(
        self, texts: Sequence[Text], seeds: Sequence[int] | None = None
    ) -> TextBatch:
        """Encodes texts, with a seed for each, on the model's device."""
        batch = self.encode(texts)
        return replace(
            batch,
            input_ids=batch.input_ids.to(self.device),
            attention_mask=batch.attention_mask.to(self.device),
            attributable=batch.attributable.to(self.device),
            extras={name: t.to(self.device) for name, t in batch.extras.items()},
            seeds=batch.seeds if seeds is None else tuple(seeds),
        )

    def batches(
        self,
        texts: Sequence[Text],
        seeds: Sequence[int] | None = None,
        tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    ) -> Iterator[tuple[list[int], TextBatch]]:
        r"""
        Batches of texts of similar length, so that there is little padding. If padding
        changes the model's answer, as tried on two texts of different lengths, the
        texts of a batch have exactly the same length.

        Args:
            texts (Sequence of str or pair): The texts.
            seeds (Sequence of int, optional): A seed for each text; None for 0.
                Default: None
            tokens_per_batch (int): The most tokens in a batch, padding counted. A text
                that is longer is a batch of its own.
                Default: 512

        Returns:
            *Iterator of (list of int, TextBatch)*: For each batch the positions of its
            texts in ``texts``, and the batch on the model's device. Batches are encoded
            as they are asked for; only the lengths of all texts are kept.

        Raises:
            ValueError: If ``tokens_per_batch`` is below 1 or a text has no tokens.

        Examples::

            >>> for places, batch in text_model.batches(texts):
            ...     logits = text_model.logits(batch.input_ids, *batch.forward_args)
        """
        lengths: list[int] = []
        with warnings.catch_warnings():
            # The warning about cut texts comes when their batch is made.
            warnings.simplefilter("ignore", UserWarning)
            for start in range(0, len(texts), 256):
                some = self.encode(texts[start : start + 256])
                lengths += [len(tokens) for tokens in some.tokens]
        groups = by_length(lengths, tokens_per_batch)
        mixed = next((g for g in groups if lengths[g[0]] != lengths[g[-1]]), None)
        if mixed and self._depends_on_padding(texts[mixed[0]], texts[mixed[-1]]):
            groups = by_length(lengths, tokens_per_batch, same_length=True)
        for places in groups:
            chosen = None if seeds is None else [seeds[place] for place in places]
            yield places, self.batch([texts[place] for place in places], chosen)

    def _depends_on_padding(self, short: Text, long: Text) -> bool:
        with warnings.catch_warnings(), torch.no_grad(), self.evaluation_mode():
            warnings.simplefilter("ignore", UserWarning)
            return depends_on_padding(self.logits, self.batch([short, long]))

    def probabilities(
        self, input_ids: Tensor, attention_mask: Tensor, *extras: Tensor
    ) -> Tensor:
        """Class probabilities (batch, classes), in float64 where the device has it.

        In float32 the probability of a confident model rounds to exactly 1, and with it
        every gradient and difference to 0.
        """
        return self._read(self.logits(input_ids, attention_mask, *extras))

    def log_odds(
        self, input_ids: Tensor, attention_mask: Tensor, *extras: Tensor
    ) -> Tensor:
        """The log-odds of each class, (batch, classes)."""
        logits = self.logits(input_ids, attention_mask, *extras)
        return self.outputs.log_odds(self._checked(logits))

    def _read(self, logits: Tensor) -> Tensor:
        return self.outputs.probabilities(self._checked(logits))

    def _checked(self, logits: Tensor) -> Tensor:
        if logits.dim() != 2 or logits.shape[1] != len(self.class_names):
            raise ValueError(
                f"class_names has {len(self.class_names)} entries "
                f"({', '.join(self.class_names):.80}), and the model returned logits "
                f"of shape {tuple(logits.shape)}; expected (batch, classes), with a "
                "name for each class."
            )
        return logits

    def logits_from_embeddings(
        self, embeddings: Tensor, attention_mask: Tensor, *extras: Tensor
    ) -> Tensor:
        """Logits (batch, classes) from embeddings (batch, tokens, dim), which replace
        the output of the embedding layer."""
        n_used = 0

        def replaced(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            nonlocal n_used
            n_used += 1
            return embeddings.to(output.dtype)

        # The ids only say where there is padding, which some models read from them.
        word = 0 if self.pad_id != 0 else 1
        ids = torch.full(attention_mask.shape, word, device=embeddings.device)
        with hooked(self.embedding.register_forward_hook, replaced):
            logits = self.logits(
                ids.masked_fill(~attention_mask, self.pad_id), attention_mask, *extras
            )
        if n_used != 1:
            raise RuntimeError(
                f"The embedding module ({type(self.embedding).__name__}) ran {n_used} "
                "times in one pass of the model; expected once. Pass the module that "
                "embeds the token ids as embedding."
            )
        return logits

    def probabilities_from_embeddings(
        self, embeddings: Tensor, attention_mask: Tensor, *extras: Tensor
    ) -> Tensor:
        """As :meth:`probabilities`, from embeddings (batch, tokens, dim)."""
        return self._read(
            self.logits_from_embeddings(embeddings, attention_mask, *extras)
        )

    def embed(self, input_ids: Tensor) -> Tensor:
        """The embeddings of ids, without autograd."""
        with torch.no_grad():
            embedded: Tensor = self.embedding(input_ids)
        return embedded

    @contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """Puts every module into evaluation mode, and back after the block."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


__all__ = ["DEFAULT_TOKENS_PER_BATCH", "TextBatch", "TextModel"]
