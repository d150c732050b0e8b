r"""What comparing explanations needs to know of a text classifier, and nothing more."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from captum_attngrad.text import pad_batch


@dataclass(frozen=True)
class TextBatch:
    r"""
    Some texts as the model reads them.

    Args:
        tokens (tuple of tuple of str): Tokens of each text, as they are shown.
        input_ids (Tensor): Token ids, shape (batch, tokens), padded.
        attention_mask (Tensor): Boolean, same shape: False on padding.
        attributable (Tensor): Boolean, same shape: True on tokens that may be scored
            and removed, so False on padding and special tokens.
        seeds (tuple of int): A seed for each text, for methods that draw at random. It
            belongs to the text, so results do not depend on how texts are batched.
    """

    tokens: tuple[tuple[str, ...], ...]
    input_ids: Tensor
    attention_mask: Tensor
    attributable: Tensor
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def row(self, index: int) -> "TextBatch":
        """One text as a batch of its own, with the padding it has here."""
        rows = slice(index, index + 1)
        return TextBatch(
            self.tokens[rows],
            self.input_ids[rows],
            self.attention_mask[rows],
            self.attributable[rows],
            self.seeds[rows],
        )


@dataclass(frozen=True)
class TextModel:
    r"""
    One view of a text classifier: from texts to ids, from ids to probabilities, and
    where its embedding and its attention are. Made by :meth:`from_torch`.

    Args:
        model (nn.Module): The classifier.
        logits (Callable): Maps (input_ids, attention_mask) to logits (batch, classes).
        encode (Callable): Maps texts to a :class:`TextBatch` on the CPU.
        replacement_id (int): Token id that stands for a removed token.
        embedding (nn.Module): The module that embeds token ids.
        layer (nn.Module or list of nn.Module, optional): The modules that attend; None
            for every attention found in ``model``.
        class_names (tuple of str): Names of the classes, in the order of the logits.
    """

    model: nn.Module
    logits: Callable[[Tensor, Tensor], Tensor]
    encode: Callable[[Sequence[str]], TextBatch]
    replacement_id: int
    embedding: nn.Module
    layer: nn.Module | list[nn.Module] | None
    class_names: tuple[str, ...]

    @classmethod
    def from_torch(
        cls,
        model: nn.Module,
        tokenizer: Callable[[str], Sequence[str]],
        vocab: Callable[[list[str]], Sequence[int]],
        *,
        embedding: nn.Module,
        layer: nn.Module | list[nn.Module] | None = None,
        forward_func: Callable[[Tensor, Tensor], Tensor] | None = None,
        class_names: Sequence[str] = ("negative", "positive"),
        unk_token: str = "<unk>",
        pad_token: str = "<pad>",
    ) -> "TextModel":
        r"""
        A view of a PyTorch classifier with a tokenizer and a vocabulary; those of
        torchtext fit as they are.

        Args:
            model (nn.Module): The classifier.
            tokenizer (Callable): Splits a text into tokens.
            vocab (Callable): Maps a list of tokens to a list of ids.
            embedding (nn.Module): The submodule that embeds the ids.
            layer (nn.Module or list of nn.Module, optional): The submodules that
                attend; they may contain the attention at any depth. None means every
                attention layer of ``model``.
                Default: None
            forward_func (Callable, optional): Maps (input_ids, attention_mask) to
                logits (batch, classes), where the mask is boolean, True on tokens.
                None calls ``model(input_ids, attention_mask)``.
                Default: None
            class_names (Sequence of str): Names of the classes.
                Default: ("negative", "positive")
            unk_token (str): Token that takes the place of removed tokens.
                Default: "<unk>"
            pad_token (str): Token that fills up short texts.
                Default: "<pad>"

        Returns:
            *TextModel*

        Raises:
            ValueError: When a text without tokens is encoded.

        Examples::

            >>> text_model = TextModel.from_torch(
            ...     model, WordTokenizer(), vocab,
            ...     embedding=model.embedding, layer=model.attention,
            ... )
            >>> compare(text_model, ["A fine film.", "It drags on."])
        """
        unk_id, pad_id = vocab([unk_token, pad_token])

        def encode(texts: Sequence[str]) -> TextBatch:
            tokens = tuple(tuple(tokenizer(text)) for text in texts)
            for text, found in zip(texts, tokens, strict=True):
                if not found:
                    raise ValueError(
                        f"The text {text!r:.80} has no tokens, so there is nothing to "
                        "explain; leave such texts out."
                    )
            ids, mask = pad_batch([vocab(list(found)) for found in tokens], pad_id)
            return TextBatch(tokens, ids, mask, mask, (0,) * len(tokens))

        return cls(
            model=model,
            logits=forward_func if forward_func is not None else model,
            encode=encode,
            replacement_id=unk_id,
            embedding=embedding,
            layer=layer,
            class_names=tuple(class_names),
        )

    @property
    def device(self) -> torch.device:
        """The device of the embedding's weights."""
        return next(self.embedding.parameters()).device

    def batch(
        self, texts: Sequence[str], seeds: Sequence[int] | None = None
    ) -> TextBatch:
        """Encodes texts, with a seed for each, on the model's device."""
        batch = self.encode(texts)
        return replace(
            batch,
            input_ids=batch.input_ids.to(self.device),
            attention_mask=batch.attention_mask.to(self.device),
            attributable=batch.attributable.to(self.device),
            seeds=batch.seeds if seeds is None else tuple(seeds),
        )

    def probabilities(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Class probabilities (batch, classes), in float64 where the device has it.

        In float32 the probability of a confident model rounds to exactly 1, and with it
        every gradient and difference to 0.
        """
        dtype = torch.float32 if input_ids.device.type == "mps" else torch.float64
        return self.logits(input_ids, attention_mask).to(dtype).softmax(dim=-1)

    @contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """Every module in evaluation mode inside the block, as before after it."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True
