"""Names of torch's operations, by what they do to attention weights."""

from __future__ import annotations

import torch

SOFTMAX = frozenset({"softmax", "_softmax", "special_softmax"})
LOG_SOFTMAX = frozenset({"log_softmax", "_log_softmax", "special_log_softmax"})
EXP = frozenset({"exp", "exp_"})
DROPOUT = frozenset("dropout dropout_ alpha_dropout feature_dropout".split())
# Each number stays where it is. The first group has one operand that may be weights,
# the second any of its operands.
ELEMENTWISE = DROPOUT | frozenset(
    "to type type_as float double half bfloat16 contiguous clone detach cpu cuda "
    "requires_grad_ masked_fill masked_fill_ nan_to_num nan_to_num_ div div_ divide "
    "true_divide __truediv__ __itruediv__ clamp clamp_ clamp_min clamp_min_ clamp_max "
    "clamp_max_ clip clip_ relu relu_ threshold tril tril_ triu triu_ index_fill "
    "index_fill_ pow __pow__ abs neg __neg__ round sqrt sqrt_ rsqrt "
    "square reciprocal exp exp_ expm1 log log2 log1p tanh sigmoid gelu silu elu "
    "softplus leaky_relu hardtanh float_power normalize layer_norm rms_norm batch_norm "
    "group_norm instance_norm".split()
)
ELEMENTWISE_OF_SEVERAL = frozenset(
    "add add_ __add__ __radd__ __iadd__ sub sub_ subtract __sub__ __rsub__ __isub__ "
    "where lerp lerp_ maximum minimum".split()
)
RESHAPE = frozenset(
    "transpose permute swapaxes swapdims movedim moveaxis t unsqueeze squeeze view "
    "reshape flatten unflatten expand expand_as view_as reshape_as adjoint ravel "
    "broadcast_to".split()
)
# Of these all results are views of some entries.
SLICE = frozenset(
    "__getitem__ narrow select chunk split tensor_split unbind hsplit vsplit "
    "split_with_sizes diagonal".split()
)
# Shape operations whose arguments are sizes.
SIZED = frozenset(
    "view reshape unflatten expand expand_as view_as reshape_as broadcast_to".split()
)
PROPERTIES = frozenset(
    getattr(torch.Tensor, name).__get__ for name in ("T", "mT", "H", "mH")
)
MATMUL = frozenset("matmul __matmul__ linalg_matmul bmm mm mv".split())
REVERSED_MATMUL = frozenset({"__rmatmul__"})
MATMUL_ADD = frozenset("baddbmm addbmm addmm baddbmm_ addmm_".split())
PRODUCT = frozenset("mul mul_ multiply multiply_ __mul__ __rmul__ __imul__".split())
SUM = frozenset({"sum", "mean"})
# Weigh values too, in ways that are not followed.
CONTRACTIONS = frozenset(
    "tensordot vecdot linalg_vecdot inner dot vdot multi_dot linalg_multi_dot "
    "chain_matmul addcmul addcmul_ addmv addr bilinear scatter_add scatter_add_ "
    "index_add index_add_ embedding_bag kron".split()
)
# What may be asked of weights without losing them from sight.
QUESTIONS = frozenset(
    "argmax argmin argsort entropy "
    "isnan isfinite any all eq ne gt lt ge le __eq__ __ne__ __gt__ __lt__ __ge__ "
    "__le__ zeros_like ones_like empty_like full_like rand_like randn_like "
    "new_zeros new_ones new_full new_empty new_tensor size numel count_nonzero "
    "allclose equal isclose cross_entropy nll_loss multinomial bernoulli "
    "backward register_hook __get__ __len__ dim dist norm "
    "__repr__ __format__ __str__ item tolist numpy __bool__ __float__ "
    "retain_grad".split()
)
