"""Attention gradient for the answers of language models."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from captum.attr import (
    Attribution,
    InterpretableInput,
    TextTemplateInput,
    TextTokenInput,
)
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_attngrad._captum import TokenizerLike
from captum_attngrad.attr._core.environment import uncompiled
from captum_attngrad.attr.attention_gradient import AttentionGradient
from captum_attngrad.attr.llm._answer import (
    MAX_UNSATURATED,
    AttrTarget,
    TokenScores,
    answer_ids,
    check_ids,
    checked_attr_target,
    explained_tokens,
    labels,
    token_ids,
)
from captum_attngrad.attr.llm._prefill import (
    Continuation,
    NoCacheError,
    NotContinuableError,
    PrefilledPrompt,
    prefill,
)
from captum_attngrad.attr.llm._prompt import Prompt, read_prompt
from captum_attngrad.attr.llm._rows import AnswerExplainer, Explained, Query
from captum_attngrad.attr.llm.result import AnswerAttribution


class LLMAttentionGradient(Attribution):
    r"""
    What in its prompt did a language model's answer rest on? One signed score for each
    token, sentence, message or source.

    The answer :math:`y` is predicted by its *answer rows*: the attention rows of the
    last position of the prompt and of all answer tokens but the last. The score of a
    token k of the prompt is its share of what they read,

    .. math:: \sum_h \sum_{q \in \text{answer rows}} A^h_{qk}
              \frac{\partial s}{\partial A^h_{qk}},

    summed over the layers, where :math:`s` is the sum of the log-odds of the answer's
    tokens. It is exact at any length and on fused attention. Since earlier positions
    do not depend on the answer rows, the prompt needs no graph: the model reads it
    once into its cache of keys and values, and only the positions of the answer are
    differentiated.

    Cost: little more than a forward pass over prompt and answer, in the memory of the
    cache and of the answer's graph. With ``per_token`` (the default), one backward pass
    more through the answer's positions for each of its tokens. Where the model keeps no
    cache, all of the text is differentiated; where its cache cannot be matched with the
    tokens (recurrent layers), too, and a warning says why.

    The multiplication by the attention weights and the sum over the answer rows are
    this class's choices. Based on the attention gradient of S. Chakraborty, T. Le,
    P. Gurram and R. Tomsett, *Paying Attention to Attention for Explanation* (2020).

    Use it on models in ``eval()`` mode.
    """

    SUPPORTED_METHODS = (AttentionGradient,)
    SUPPORTED_INPUTS = (TextTokenInput, TextTemplateInput)

    def __init__(
        self,
        attention_gradient: AttentionGradient | Module,
        tokenizer: TokenizerLike,
        attr_target: AttrTarget = "log_odds",
    ) -> None:
        r"""
        Args:

            attention_gradient (torch.nn.Module or AttentionGradient): The language
                        model (one that follows the conventions of Hugging Face: token
                        ids in, an object with ``.logits`` out), which is explained by
                        attention times gradient in all layers. Or an instance of
                        AttentionGradient, whose options hold; it must have no
                        ``loss_func``.
            tokenizer (Tokenizer): The tokenizer of the model.
            attr_target (str, optional): What is explained of a token: its
                        ``"log_odds"`` :math:`\log p / (1 - p)`, its logit against
                        those of all other tokens; its ``"logit"`` alone, which much
                        can raise that raises all logits; its log-probability
                        ``"log_prob"``, whose gradient vanishes where the model is
                        sure; or its probability ``"prob"``. The whole answer has the
                        sum of them (of ``"prob"`` the product).
                        Default: "log_odds"

        Raises:
            TypeError: neither a module nor an AttentionGradient.
            ValueError: a ``loss_func``, an unknown attr_target, or an encoder–decoder
                model.
        """
        if isinstance(attention_gradient, Module):
            attention_gradient = AttentionGradient(
                attention_gradient, multiply_by_attention=True
            )
        if not isinstance(attention_gradient, self.SUPPORTED_METHODS):
            raise TypeError(
                f"attention_gradient is {type(attention_gradient).__name__}, expected "
                "the language model (a torch.nn.Module), or an instance of "
                "AttentionGradient."
            )
        if attention_gradient.loss_func is not None:
            raise ValueError(
                "attention_gradient has a loss_func, but attr_target chooses what is "
                "explained of a language model. Make the AttentionGradient without a "
                "loss_func."
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
        self.attr_target = checked_attr_target(attr_target)
        # The same method, of the text that goes on from a cache.
        self._method = copy(attention_gradient)
        self._method.forward_func = Continuation(self.model)
        if attention_gradient.layer is None:
            self._method.layer = self.model

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inp: str | InterpretableInput | PrefilledPrompt,
        target: str | Tensor | None = None,
        gen_args: dict[str, Any] | None = None,
        *,
        skip_tokens: Sequence[int | str] | None = None,
        query: Query = "answer",
        per_token: bool = True,
        contrast: str | Tensor | None = None,
        show_progress: bool = False,
    ) -> AnswerAttribution:
        r"""
        Args:

            inp (str, InterpretableInput or PrefilledPrompt): The prompt: a string,
                        whose tokens (with those that the tokenizer adds) are the
                        features; Captum's ``TextTokenInput`` or ``TextTemplateInput``,
                        or one of :mod:`captum_attngrad.attr.llm.inputs` (sentences,
                        messages, sources). The values of a template are its features;
                        the scores of their tokens are summed, and those of the text
                        around them are left out. A token that reaches over several
                        values is shared among them by its characters; one that reaches
                        into the text around a value is the value's. Values that
                        ``mask`` groups are one feature. Or what :meth:`prefill` made
                        of one of these: then only the answer is run.
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
            query (str or int, optional): Which rows count. ``"answer"``: the answer
                        rows, what the answer read. ``"all"``: all rows, which includes
                        what the positions of the prompt read from each other. An int:
                        one row, from the start of the prompt (0 and up), or back from
                        the position that predicts the token (-1 is that position).
                        All but "answer" differentiate the whole text.
                        Default: "answer"
            per_token (bool, optional): Score each answer token by itself as well.
                        False takes a single backward pass, whatever the answer's
                        length; ``token_attr`` is None then.
                        Default: True
            contrast (str or Tensor, optional): Another answer: why ``target`` and not
                        this one? Explained is the difference of the two logits (which
                        is that of the log-probabilities) at the first token where they
                        part, whatever ``attr_target`` is. For whole answers, subtract
                        the ``seq_attr`` of two results: scores are linear in what is
                        explained.
                        Default: None
            show_progress (bool, optional): Show a progress bar over the backward
                        passes.
                        Default: False

        Returns:
            *AnswerAttribution*, an ``LLMAttributionResult`` of Captum with further
            views (``top``, ``aggregate``, ``span``, ``to_json``), with
            - **seq_attr** (*Tensor*): ``(features,)``, for the whole answer (all its
                        explained tokens).
            - **token_attr** (*Tensor*): ``(answer tokens, features)``; None without
                        ``per_token``. Positive: what the feature contributed made the
                        token likelier. In units of ``attr_target`` (without
                        ``multiply_by_attention``: per unit of attention).
            - **input_tokens**, **output_tokens** (*list[str]*): their names.
            - **output_probs** (*Tensor*): ``(answer tokens,)``, the probability of
                        each token.
            - **inp** (*InterpretableInput*): the prompt.

        Raises:
            TypeError: a prompt or an answer of another type.
            ValueError: an empty prompt or answer; gen_args together with target;
                        target None for a model that cannot generate; a token id that
                        is out of range; a template whose values cannot be found; an
                        unknown query; a contrast that is the target; a model that is
                        not causal, or whose keys are not the tokens of the text.
            RuntimeError: as :meth:`AttentionGradient.attribute`.

        Examples::

            >>> llm_attr = LLMAttentionGradient(model, tokenizer)
            >>> result = llm_attr.attribute("The capital of France is", " Paris")
            >>> fig, ax = result.plot_token_attr()
            >>> # Which source did the answer come from?
            >>> inp = SourcesInput(sources, "What does a ticket cost?")
            >>> result = llm_attr.attribute(inp, per_token=False)
            >>> # Several answers to one prompt, which is read once.
            >>> prompt = llm_attr.prefill("The capital of France is")
            >>> why_not = llm_attr.attribute(prompt, " Paris", contrast=" London")
        """
        if query not in ("answer", "all") and type(query) is not int:
            raise ValueError(
                f"query={query!r:.80}, expected 'answer', 'all' or a row as an int."
            )
        prompt, prefilled = self._read(inp, query)
        cache = None if prefilled is None else prefilled.cache_for_one_pass()
        answer = answer_ids(
            self.model, self.tokenizer, prompt.ids, target, gen_args, cache
        )
        check_ids(self.model, answer)
        if contrast is None:
            places = explained_tokens(answer, skip_tokens, self.tokenizer)
            scores = TokenScores(answer, places, self.attr_target)
        else:
            scores = self._contrasted(answer, contrast)
        explained = self._explain(
            prompt, prefilled, scores, query, per_token, show_progress
        )
        self._warn_of_saturation(scores)
        return self._result(prompt, scores, explained, per_token)

    def prefill(
        self, inp: str | InterpretableInput, cache: Any = None
    ) -> PrefilledPrompt:
        r"""
        Read a prompt once, to explain several answers to it.

        Args:

            inp (str or InterpretableInput): As for :meth:`attribute`.
            cache (Any, optional): An empty cache of the model, such as a
                        ``StaticCache`` or a quantized one.
                        Default: None, what the model makes itself

        Returns:
            *PrefilledPrompt*, which :meth:`attribute` takes as ``inp``.

        Raises:
            ValueError: if the model keeps no cache whose keys are its tokens, or the
                prompt has a single token.
        """
        try:
            return prefill(self.model, self._prompt(inp), cache)
        except NotContinuableError as reason:
            raise ValueError(
                f"The prompt cannot be read in advance: {reason}. Pass the prompt "
                "itself to attribute."
            ) from None

    @classmethod
    def get_name(cls) -> str:
        return "LLM Attention Gradient"

    def attribute_future(self) -> Callable[[], AnswerAttribution]:
        r"""
        This method is not implemented for LLMAttentionGradient.
        """
        raise NotImplementedError(
            "attribute_future is not implemented for LLMAttentionGradient"
        )

    # -- the prompt -------------------------------------------------------------------

    def _read(
        self, inp: str | InterpretableInput | PrefilledPrompt, query: Query
    ) -> tuple[Prompt, PrefilledPrompt | None]:
        if isinstance(inp, PrefilledPrompt):
            return inp.prompt, inp
        prompt = self._prompt(inp)
        if query != "answer" or prompt.ids.shape[1] < 2:
            return prompt, None
        try:
            return prompt, prefill(self.model, prompt)
        except NoCacheError:
            return prompt, None
        except NotContinuableError as reason:
            _warn_of_full_pass(str(reason))
            return prompt, None

    def _prompt(self, inp: str | InterpretableInput) -> Prompt:
        prompt = read_prompt(inp, self.tokenizer)
        return replace(prompt, ids=prompt.ids.to(self._device()))

    def _device(self) -> torch.device:
        layer = self.attr_method.layer
        layers = [layer] if isinstance(layer, Module) else layer or []
        for module in (self.model, *layers):
            if isinstance(module, Module):
                for parameter in module.parameters():
                    return parameter.device
        return torch.device("cpu")

    # -- the answer -------------------------------------------------------------------

    def _contrasted(self, answer: Tensor, contrast: str | Tensor) -> TokenScores:
        other = token_ids(self.tokenizer, contrast).to(answer)
        shared = min(len(answer), len(other))
        parting = (answer[:shared] != other[:shared]).nonzero()
        if not len(parting):
            raise ValueError(
                f"contrast={contrast!r:.80} and the answer {answer.tolist()!r:.80} do "
                "not part: one begins with all tokens of the other. Pass an answer "
                "that differs from it."
            )
        check_ids(self.model, other)
        place = int(parting[0])
        return TokenScores(
            answer[: place + 1],
            torch.tensor([place]),
            self.attr_target,
            other[place : place + 1],
        )

    def _explain(
        self,
        prompt: Prompt,
        prefilled: PrefilledPrompt | None,
        scores: TokenScores,
        query: Query,
        per_token: bool,
        show_progress: bool,
    ) -> Explained:
        explainer = AnswerExplainer(self._method, query)
        if prefilled is not None and query == "answer":
            try:
                return explainer.from_cache(prefilled, scores, per_token, show_progress)
            except NotContinuableError as reason:
                _warn_of_full_pass(str(reason))
        return explainer.from_text(prompt.ids, scores, per_token, show_progress)

    def _warn_of_saturation(self, scores: TokenScores) -> None:
        if self.attr_target not in ("log_prob", "prob") or scores.others is not None:
            return
        least = float(scores.log_probs.exp().min())
        if least >= MAX_UNSATURATED:
            warnings.warn(
                "The model is sure of all explained tokens (probabilities of "
                f"{least:.4f} and more), where the gradient of a {self.attr_target} "
                "has all but vanished: what is left is mostly rounding and chance. "
                "Use attr_target='logit' or 'log_odds'.",
                stacklevel=4,
            )

    def _result(
        self, prompt: Prompt, scores: TokenScores, explained: Explained, per_token: bool
    ) -> AnswerAttribution:
        rows, log_probs = explained.scores, explained.log_probs
        total = rows.sum(dim=0)
        if self.attr_target == "prob" and scores.others is None:
            # d p = p d(log p), for a token and for the product of all.
            rows = rows * log_probs.exp().unsqueeze(1).to(rows) if per_token else rows
            total = total * log_probs.sum().exp().to(total)
        of_features = prompt.of_features
        return AnswerAttribution(
            seq_attr=of_features(total.unsqueeze(0)).squeeze(0),
            token_attr=of_features(rows) if per_token else None,
            input_tokens=prompt.features,
            output_tokens=labels(scores.explained, self.tokenizer),
            output_probs=log_probs.exp().to(rows),
            prompt_text=prompt.text,
            answer_text=self.tokenizer.decode(scores.explained.cpu()).strip(),
            offsets=prompt.offsets,
            prompt_seq_attr=total,
            prompt_token_attr=rows if per_token else None,
            inp=prompt.inp,
        )


def _warn_of_full_pass(reason: str) -> None:
    warnings.warn(
        f"The whole text is differentiated, in more time and memory, since {reason}. "
        "The scores are exact all the same.",
        stacklevel=5,
    )
