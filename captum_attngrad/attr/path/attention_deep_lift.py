r"""DeepLIFT for models with attention."""

from __future__ import annotations

from captum.log import log_usage
from torch import Tensor

from captum_attngrad._captum import BaselineType, TargetType
from captum_attngrad.attr._core.embedding import (
    check_keys_are_tokens,
    embeddings_off_path,
)
from captum_attngrad.attr._core.inputs import Inputs, like_inputs
from captum_attngrad.attr._core.run import Runner, gradients
from captum_attngrad.attr._core.run_result import Run
from captum_attngrad.attr._core.whole_numbers import whole_number
from captum_attngrad.attr.path._baselines import inputs_and_baselines
from captum_attngrad.attr.path._embedding_path import (
    EmbeddingAttribution,
    embedded_pair,
    joint_scores,
)
from captum_attngrad.attr.path._multipliers import Secants
from captum_attngrad.attr.path._points import AttentionPath, Given, path_points
from captum_attngrad.capture._interventions import Hold, Together
from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture.calls import FusedCall
from captum_attngrad.capture.record import AttentionRecord


class AttentionDeepLift(EmbeddingAttribution):
    r"""
    DeepLIFT (Shrikumar et al. 2017) with the attention weights held: what each token
    contributes to the difference from a baseline through the values that attention
    carries upwards.

    The model runs on the baseline and on the input. A backward pass then takes, in
    place of each derivative, the slope between the two runs,

    .. math::
        R_k = (e_k - m_k) \cdot \sum_{\text{paths}} \prod_{\text{operations}}
        \frac{\Delta y}{\Delta x} ,

    with :math:`e_k` and :math:`m_k` the embeddings of the input and of the baseline.
    LayerNorm, RMSNorm and recurrent networks are taken apart; a product
    :math:`a\,b` has the slopes :math:`(b_0 + b_1)/2` and :math:`(a_0 + a_1)/2`; and the
    attention weights are constants, :math:`(A_0 + A_1)/2`. :math:`R` therefore shows
    what the tokens carry, but not how they move attention.

    ``joint_steps=2`` adds the part of attention: it returns the mean of :math:`R` and
    of :class:`JointIntegratedGradients` with two steps.

    On movie reviews and a six-layer BERT, both were better than fifty steps of
    Integrated Gradients in comprehensiveness, sufficiency, agreement with
    leave-one-out, polarity and inhibitor gain; the mean agreed with leave-one-out best.
    On an LSTM with one attention layer the mean was better in two of these measures,
    equal in two and worse in sufficiency by at most 0.002. These are results on one
    data set, with one seed of each model; ``benchmarks/search`` has the numbers and
    their intervals. As there, explain :func:`~captum_attngrad.attr.log_odds` and not a
    probability.

    Cost: three forward passes and one backward pass, and one more of each for each of
    the ``joint_steps``. The input of every operation that has a slope is kept, as in a
    forward pass of training. Fused attention stays fused; recurrent networks run one
    position after the other.

    When not to use it: where baselines mean nothing to the model, and where the scores
    must sum to the difference of the outputs, since the part of the held weights is
    missing from :math:`R`. Operations without a slope, such as max-pooling or a softmax
    outside attention, keep their derivative.
    """

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        *,
        joint_steps: int = 0,
    ) -> Tensor | tuple[Tensor]:
        r"""
        Args:

            inputs (Tensor or tuple[Tensor, ...]): Input for which attributions are
                        computed, batch first, as for
                        :meth:`AttentionGradient.attribute`.
            baselines (scalar, Tensor, tuple of scalar, or Tensor, optional): The
                        reference input, in the forms that Captum's DeepLift takes. For
                        tokens, as a rule, the input with every token but the special
                        ones replaced by the mask token.
                        Default: None, zeros
            target (int, tuple, Tensor, or list, optional): Output index, as for
                        :meth:`AttentionGradient.attribute`.
                        Default: None
            additional_forward_args (Any, optional): Further arguments of
                        forward_func, one argument or a tuple; the same for inputs and
                        baselines.
                        Default: None
            joint_steps (int, optional): If not 0, return the mean of the slopes'
                        scores and of :class:`JointIntegratedGradients` with so many
                        ``n_steps``.
                        Default: 0, the slopes' scores alone

        Returns:
            *Tensor* or *tuple[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor]*):
                        ``(batch, tokens)``, in units of the score. Positive: the
                        token raises the score. If ``inputs`` is a tuple, a tuple with
                        this one tensor.

        Raises:
            TypeError: ``embedding`` is not a module.
            ValueError: no attention in a layer; an embedding that is not called once;
                        baselines of another shape; a target that is missing or out of
                        range; negative ``joint_steps``.
            RuntimeError: the output does not depend on the attention weights or on
                        the embeddings; the model does other operations on the
                        baselines than on the inputs; an attention dropout is active.
            NotImplementedError: replicas of the model on several devices; an attention
                        kernel other than ``scaled_dot_product_attention``.

        Examples::

            >>> method = AttentionDeepLift(
            ...     lambda ids: log_odds(model(ids).logits),
            ...     model.bert.encoder,
            ...     embedding=model.get_input_embeddings(),
            ... )
            >>> masked = input_ids.masked_fill(~special_tokens, tokenizer.mask_token_id)
            >>> attributions = method.attribute(input_ids, masked, target=1)
        """
        joint_steps = whole_number("joint_steps", joint_steps, 0)
        ends, starts = inputs_and_baselines(inputs, baselines)
        further = target, additional_forward_args
        runner, embedding = self.runner(), self._embedding
        secants = Secants()
        run_of_baselines, run = (
            runner.run(
                given,
                *further,
                graph=False,
                embedding=embedding,
                intervention=intervention,
            )
            for given, intervention in (
                (starts, secants.on_baselines()),
                (ends, secants.on_inputs()),
            )
        )
        _check_kinds(run.record)
        _check_same_calls(run_of_baselines.record, run.record)
        pairs = zip(run_of_baselines.record, run.record, strict=True)
        hold = Hold({one.site_index: (one, two) for one, two in pairs})
        given = ends, *further
        multipliers = self._multipliers(runner, given, secants, hold, run)
        pair = embedded_pair(
            runner,
            embedding,
            (starts, run_of_baselines),
            (ends, run),
            additional_forward_args,
        )
        change = pair.inputs - pair.baselines
        scores = (multipliers.transpose(0, pair.batch_dim) * change).sum(dim=-1)
        if joint_steps:
            check_keys_are_tokens(run.record, pair.inputs)
            path = AttentionPath(runner, given, run.record)
            points = path_points(joint_steps, "gausslegendre")
            scores = (scores + joint_scores(path, embedding, pair, points)) / 2
        return like_inputs(scores, inputs)

    def _multipliers(
        self, runner: Runner, given: Given, secants: Secants, hold: Hold, run: Run
    ) -> Tensor:
        """What each number in the embeddings is multiplied by. The calls of ``run``
        know from now on whether they are on the path."""
        inputs, target, additional_forward_args = given
        with runner.open(
            inputs,
            additional_forward_args,
            runner.score_of(target, inputs),
            graph=True,
            intervention=Together(hold, secants.as_derivatives()),
            embedding=self._embedding,
            replacement=run.embeddings,
        ) as opened:
            multipliers: Tensor | None = None
            if opened.score.requires_grad:
                *found, multipliers = gradients(
                    opened.score.sum(),
                    [*hold.given.values(), opened.vectors],
                    keep_graph=False,
                )
                by_call = dict(zip(hold.given, found, strict=True))
                for call in run.record:
                    call.set_gradients([by_call.get(call.site_index)])
        runner.check_on_path(run.record)
        if multipliers is None:
            raise embeddings_off_path()
        return multipliers


def _check_same_calls(baselines: AttentionRecord, inputs: AttentionRecord) -> None:
    if [call.site_index for call in baselines] != [call.site_index for call in inputs]:
        raise RuntimeError(
            f"The model made {len(inputs)} attention calls on the inputs and "
            f"{len(baselines)} on the baselines, or in another order: it must make the "
            "same for both."
        )


def _check_kinds(record: AttentionRecord) -> None:
    for call in record:
        if type(call) not in (FusedCall, SoftmaxCall):
            raise NotImplementedError(
                f"Layer {call.layer!r} attends with {call.kind}, whose weights "
                "AttentionDeepLift cannot hold. Use scaled_dot_product_attention "
                "(Hugging Face: model.set_attn_implementation('sdpa'))."
            )
