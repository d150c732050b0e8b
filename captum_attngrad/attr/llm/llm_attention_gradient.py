"""Attention gradient for the answers of language models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from captum.attr import (
    Attribution,
    InterpretableInput,
    LLMAttributionResult,
    TextTemplateInput,
    TextTokenInput,
)
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module
from tqdm.auto import tqdm

from captum_attngrad._captum import TokenizerLike
from captum_attngrad.attr._core.environment import uncompiled
from captum_attngrad.attr._core.whole_numbers import checked_batch_size
from captum_attngrad.attr.attention_gradient import AttentionGradient
from captum_attngrad.attr.llm._answer import (
    TokenLoss,
    answer_ids,
    explained_tokens,
    labels,
    last_logits_only,
)
from captum_attngrad.attr.llm._prompt import Prompt, read_prompt

# Copies of the text share a pass up to this many tokens: enough to keep a device busy,
# few enough for the memory that one long text would take anyway.
_MAX_TOKENS_PER_PASS = 1024

# Captum 0.9 keeps the prompt and the probabilities in the result.
_TAKES_PROMPT = "inp" in inspect.signature(LLMAttributionResult).parameters


class LLMAttentionGradient(Attribution):
    r"""
    Attention gradient for decoder-only language models: what in the prompt supported
    and what opposed each token of the answer, and the answer as a whole.

    It wraps an :class:`AttentionGradient`, as Captum's ``LLMGradientAttribution``
    (which accepts only Captum's own classes) wraps a layer method, and returns
    Captum's ``LLMAttributionResult`` with its plots.

    For the answer token :math:`y_t` the score is :math:`s_t = \log p(y_t \mid x,
    y_{<t})`, given the prompt :math:`x` and the previous answer tokens. Its gradient
    with respect to the attention weights is taken as in the wrapped instance: summed
    over the chosen layers and heads and over all query positions up to the one that
    predicts :math:`y_t` (later ones have no influence), into one score for each token
    of the prompt. The score of the whole answer is :math:`\sum_t s_t`, the
    log-probability of the answer. Its attribution is therefore the sum of those of its
    tokens, as in Captum. Previous answer tokens receive attention too, but their
    contribution is not shown.

    Cost: all answer tokens are explained in one forward and one backward pass through
    a batch of copies of prompt and answer, one copy for each token, or in several such
    passes if the copies together have more than 1024 tokens (``internal_batch_size``).
    The arithmetic is that of one forward and backward pass over the text for each
    answer token. Each pass ends after the last token that it explains, and asks models
    that know ``logits_to_keep`` for the logits of the answer only.

    Use it on models in ``eval()`` mode.
    """

    SUPPORTED_METHODS = (AttentionGradient,)
    SUPPORTED_INPUTS = (TextTokenInput, TextTemplateInput)

    def __init__(
        self,
        attention_gradient: AttentionGradient,
        tokenizer: TokenizerLike,
        attr_target: Literal["log_prob", "prob", "logit"] = "log_prob",
    ) -> None:
        r"""
        Args:

            attention_gradient (AttentionGradient): An instance made with the language
                        model (one that follows the conventions of Hugging Face: token
                        ids in, logits ``(batch, positions, vocabulary)`` or an object
                        with ``.logits`` out), or with a function that runs it and the
                        layers. Its options apply; it must have no ``loss_func``.
            tokenizer (Tokenizer): The tokenizer of the model.
            attr_target (str, optional): What is explained of a token: its
                        log-probability ``"log_prob"``, its probability ``"prob"`` (for
                        the whole answer: the product) or its ``"logit"`` (for the
                        whole answer: the sum).
                        Default: "log_prob"
        """
        if not isinstance(attention_gradient, self.SUPPORTED_METHODS):
            raise TypeError(
                f"attention_gradient is {type(attention_gradient).__name__}, expected "
                "an instance of AttentionGradient, such as AttentionGradient(model)."
            )
        if attention_gradient.loss_func is not None:
            raise ValueError(
                "attention_gradient has a loss_func, but attr_target chooses what is "
                "explained of a language model. Make the AttentionGradient without a "
                "loss_func."
            )
        if attr_target not in ("log_prob", "prob", "logit"):
            raise ValueError(
                f"attr_target={attr_target!r} is unknown: it is 'log_prob', 'prob' or "
                "'logit'."
            )
        super().__init__(attention_gradient.forward_func)
        self.model = uncompiled(attention_gradient.forward_func)
        config = getattr(self.model, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            raise ValueError(
                f"{type(self.model).__name__} is an encoder-decoder model; "
                "LLMAttentionGradient is for decoder-only language models. Use "
                "SequenceAttentionGradient."
            )
        self.attr_method = attention_gradient
        self.tokenizer = tokenizer
        self.attr_target = attr_target

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inp: str | InterpretableInput,
        target: str | Tensor | None = None,
        gen_args: dict[str, Any] | None = None,
        *,
        skip_tokens: Sequence[int | str] | None = None,
        query: int | None = None,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> LLMAttributionResult:
        r"""
        Args:

            inp (str or InterpretableInput): The prompt: a string, whose tokens (with
                        those that the tokenizer adds) are the features, or Captum's
                        ``TextTokenInput`` or ``TextTemplateInput``. The values of a
                        template are its features; the scores of their tokens are
                        summed, and those of the text around them are left out. The
                        score of a token that covers several values is divided among
                        them by its characters; that of a token that covers a value and
                        text around it goes to the value. Values that ``mask`` groups
                        are one feature.
            target (str or Tensor, optional): The answer that is explained, as it
                        follows the prompt (including a leading space): a string, which
                        is encoded without special tokens, or token ids, ``(tokens,)``.
                        Default: None, what the model generates
            gen_args (dict, optional): Arguments of the model's ``generate``, only if
                        target is None.
                        Default: None, Captum's ``{"max_new_tokens": 25, "do_sample":
                        False, "temperature": None, "top_p": None}``
            skip_tokens (list[int] or list[str], optional): Tokens of the answer that
                        are not explained, such as an end token, as strings or ids.
                        Later tokens are still predicted from them.
                        Default: None
            query (int, optional): Explain one query position instead of the sum over
                        all: counted from the start of the prompt (0 and up), or back
                        from the position that predicts the token (-1 is that position,
                        whose attention chooses what goes into the prediction).
                        Default: None
            internal_batch_size (int, optional): How many answer tokens are explained
                        in one pass: copies of the text that share a batch.
                        Default: None, as many as have 1024 tokens together, at least
                        one
            show_progress (bool, optional): Show a progress bar over the passes.
                        Default: False

        Returns:
            *LLMAttributionResult*, Captum's, with
            - **seq_attr** (*Tensor*): ``(features,)``, for the whole answer (all its
                        explained tokens).
            - **token_attr** (*Tensor*): ``(answer tokens, features)``. Positive: more
                        attention to the feature would make the token likelier. In
                        nats per unit of attention (for ``"log_prob"``; with
                        ``multiply_by_attention`` in nats).
            - **input_tokens**, **output_tokens** (*list[str]*): their names.
            - **output_probs** (*Tensor*, Captum 0.9 and newer): ``(answer tokens,)``,
                        the probability of each token.
            - **inp** (Captum 0.9 and newer): the prompt.

        Raises:
            TypeError: a prompt or an answer of another type.
            ValueError: an empty prompt or answer; gen_args together with target;
                        target None for a model that cannot generate; a token id that
                        is out of range; a template whose values cannot be found; a
                        model that is not causal, or whose keys are not the tokens of
                        the text.
            RuntimeError: as :meth:`AttentionGradient.attribute`.

        Examples::

            >>> method = AttentionGradient(model, multiply_by_attention=True)
            >>> llm_attr = LLMAttentionGradient(method, tokenizer)
            >>> result = llm_attr.attribute("The capital of France is", " Paris")
            >>> fig, ax = result.plot_token_attr()
            >>> # Only the name of the country is a feature.
            >>> inp = TextTemplateInput("The capital of {} is", ["France"])
            >>> result = llm_attr.attribute(inp, " Paris")
        """
        if query is not None and type(query) is not int:
            raise TypeError(f"query must be None or an int, got {query!r:.80}.")
        internal_batch_size = checked_batch_size(internal_batch_size)
        prompt = read_prompt(inp, self.tokenizer)
        ids = prompt.ids.to(self._device())
        answer = answer_ids(self.model, self.tokenizer, ids, target, gen_args)
        self._check_ids(answer)
        explained = explained_tokens(answer, skip_tokens, self.tokenizer)
        scores, log_probs = self._explain(
            ids, answer, explained, query, internal_batch_size, show_progress
        )
        return self._result(prompt, answer[explained], scores, log_probs)

    @classmethod
    def get_name(cls) -> str:
        return "LLM Attention Gradient"

    def attribute_future(self) -> Callable[[], LLMAttributionResult]:
        r"""
        This method is not implemented for LLMAttentionGradient.
        """
        raise NotImplementedError(
            "attribute_future is not implemented for LLMAttentionGradient"
        )

    def _device(self) -> torch.device:
        layer = self.attr_method.layer
        layers = [layer] if isinstance(layer, Module) else layer or []
        for module in (self.model, *layers):
            if isinstance(module, Module):
                for parameter in module.parameters():
                    return parameter.device
        return torch.device("cpu")

    def _check_ids(self, answer: Tensor) -> None:
        """
        Raises:
            ValueError: if an id is out of range, before an embedding fails on it.
        """
        size = getattr(getattr(self.model, "config", None), "vocab_size", None)
        if isinstance(size, int) and int(answer.max()) >= size:
            raise ValueError(
                f"Token id {int(answer.max())} of the answer is out of range: the "
                f"model has a vocabulary of {size}. Is the tokenizer the model's?"
            )

    def _explain(
        self,
        ids: Tensor,
        answer: Tensor,
        explained: Tensor,
        query: int | None,
        size: int | None,
        show_progress: bool,
    ) -> tuple[Tensor, Tensor]:
        """For each explained token, the scores of the prompt's tokens and the token's
        log-probability."""
        text = torch.cat([ids, answer.unsqueeze(0)], dim=1)
        length = ids.shape[1]
        if size is None:
            size = max(1, _MAX_TOKENS_PER_PASS // text.shape[1])
        chunks = explained.split(size)
        rows: list[tuple[Tensor, Tensor]] = []
        description = f"{self.get_name()} attribution"
        for chunk in tqdm(chunks, desc=description, disable=not show_progress):
            # The last token is predicted at the position before it.
            upto = text[:, : length + int(chunk[-1])]
            rows.append(self._pass(upto, length + chunk - 1, answer[chunk], query))
        scores = torch.cat([row[:, :length] for row, _ in rows])
        return scores, torch.cat([log_probs for _, log_probs in rows])

    def _pass(
        self, text: Tensor, predicting: Tensor, tokens: Tensor, query: int | None
    ) -> tuple[Tensor, Tensor]:
        """Scores, ``(copies, keys)``, and log-probabilities, ``(copies,)``. Copy i of
        the text explains token i."""
        loss = TokenLoss(text.shape[1] - 1 - predicting, self.attr_target == "logit")
        method = self.attr_method.with_loss_func(loss)
        copies = text.expand(len(tokens), -1)
        rows = None if query is None else _query_rows(query, predicting)
        with last_logits_only(self.model, loss.positions):
            scores = method.attribute(copies, tokens, query=rows)
        _check_causal(scores, predicting, text.shape[1])
        return scores, loss.log_probs.to(scores)

    def _result(
        self, prompt: Prompt, tokens: Tensor, scores: Tensor, log_probs: Tensor
    ) -> LLMAttributionResult:
        rows = prompt.of_features(scores)
        total = rows.sum(dim=0)
        if self.attr_target == "prob":
            # d p = p d(log p), for a token and for the product of all.
            rows = rows * log_probs.exp().unsqueeze(1)
            total = total * log_probs.sum().exp()
        more: dict[str, Any] = {}
        if _TAKES_PROMPT:
            more = {"inp": prompt.inp, "output_probs": log_probs.exp()}
        return LLMAttributionResult(
            seq_attr=total,
            token_attr=rows,
            input_tokens=prompt.features,
            output_tokens=labels(tokens, self.tokenizer),
            **more,
        )


def _query_rows(query: int, predicting: Tensor) -> Tensor:
    """The chosen query position of each copy."""
    first = int(predicting[0])
    if not -first - 1 <= query <= first:
        raise ValueError(
            f"query={query} is out of range: token 1 of the answer is predicted at "
            f"position {first}, so positions go from 0 to {first}, or from "
            f"{-first - 1} to -1."
        )
    return predicting + 1 + query if query < 0 else torch.full_like(predicting, query)


def _check_causal(scores: Tensor, predicting: Tensor, length: int) -> None:
    """
    Raises:
        ValueError: if keys are not the tokens of the text, or one after the position
            that predicts has a score.
    """
    if scores.shape[1] != length:
        raise ValueError(
            f"The attention has {scores.shape[1]} keys for a text of {length} tokens, "
            "so keys cannot be matched with tokens (a prefix, a window or pooling?). "
            "Choose layers that attend to the tokens of the text with layer=[...]."
        )
    later = torch.arange(length, device=scores.device) > predicting.unsqueeze(1).to(
        scores.device
    )
    # Kernels may leave rounding errors.
    if bool((scores[later].abs() > 1e-4 * scores.abs().max()).any()):
        raise ValueError(
            "The model is not causal: tokens after the one that predicts influence "
            "the prediction. LLMAttentionGradient is for decoder-only language models "
            "that attend to previous tokens only."
        )
