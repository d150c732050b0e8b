"""Encoders with decoders, and long documents."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.architectures.cases import (
    ENCODER_DECODER,
    SEQ2SEQ,
    SMALL,
    VOCABULARY,
    Case,
    folded,
)

BOTH = {"input_ids": 7, "decoder_input_ids": 5}
_SAME = {"": "TOKENS"}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "local_radius": 3,
    "global_block_size": 4,
}
_T5_LAYERS = {
    "encoder": r"encoder\.block\.\d\.layer\.0\.\w+SelfAttention",
    "decoder": r"decoder\.block\.\d\.layer\.0\.SelfAttention",
    "cross": r"decoder\.block\.\d\.layer\.1\.EncDecAttention",
}
_OUT = ("last_hidden_state", "encoder_last_hidden_state")


def blocks(weights: Tensor, batch: int) -> Tensor:
    """Of ``(batch, blocks, heads, queries, keys)``: blocks count as heads."""
    return weights.flatten(1, 2)


def codebooks(batch: int) -> Tensor:
    """Tokens of music, two codebooks an example."""
    generator = torch.Generator().manual_seed(4)
    return torch.randint(4, VOCABULARY, (2 * batch, 5), generator=generator)


def _musicgen() -> dict[str, object]:
    return {**_T5, "model_type": "t5"}


SEQ2SEQ_CASES = (
    Case("Pegasus", "PegasusModel", SEQ2SEQ, ENCODER_DECODER, BOTH),
    Case("M2M100", "M2M100Model", SEQ2SEQ, ENCODER_DECODER, BOTH),
    Case("mBART", "MBartModel", SEQ2SEQ, ENCODER_DECODER, BOTH),
    Case("Marian", "MarianModel", SEQ2SEQ, ENCODER_DECODER, BOTH),
    Case(
        "LongT5, local",
        "LongT5Model",
        {**_T5, "encoder_attention_type": "local"},
        {"encoder": r"encoder\.block\.\d\.layer\.0\.LocalSelfAttention"},
        {"input_ids": 11, "decoder_input_ids": 5},
        {"": "APART"},
        sums=False,
        implementations=("eager",),
        interface=False,
        arrange=blocks,
        remark="blocks with keys of their own: no sums",
    ),
    Case(
        "LongT5, local, decoder",
        "LongT5Model",
        {**_T5, "encoder_attention_type": "local"},
        {"decoder": _T5_LAYERS["decoder"], "cross": _T5_LAYERS["cross"]},
        {"input_ids": 11, "decoder_input_ids": 5},
        implementations=("eager",),
        interface=False,
    ),
    Case(
        "LongT5, transient global",
        "LongT5Model",
        {**_T5, "encoder_attention_type": "transient-global"},
        {"encoder": r"encoder\.block\.\d\.layer\.0\.TransientGlobalSelfAttention"},
        {"input_ids": 11, "decoder_input_ids": 5},
        {"": "APART"},
        sums=False,
        implementations=("eager",),
        interface=False,
        arrange=blocks,
        remark="blocks with keys of their own: no sums",
    ),
    Case(
        "Longformer",
        "LongformerModel",
        {**SMALL, "attention_window": [4, 4]},
        {"self": r"encoder\.layer\.\d\.attention\.self"},
        {"input_ids": 11},
        {"": "APART"},
        sums=False,
        implementations=("eager",),
        interface=False,
    ),
    Case(
        "LED",
        "LEDModel",
        {
            **SEQ2SEQ,
            "attention_window": [4, 4],
            "max_encoder_position_embeddings": 64,
            "max_decoder_position_embeddings": 64,
        },
        {"encoder": r"encoder\.layers\.\d\.self_attn\.longformer_self_attn"},
        {"input_ids": 11, "decoder_input_ids": 5},
        {"": "APART"},
        sums=False,
        implementations=("eager",),
        interface=False,
    ),
    Case(
        "LED, decoder",
        "LEDModel",
        {
            **SEQ2SEQ,
            "attention_window": [4, 4],
            "max_encoder_position_embeddings": 64,
            "max_decoder_position_embeddings": 64,
        },
        {"decoder": ENCODER_DECODER["decoder"], "cross": ENCODER_DECODER["cross"]},
        {"input_ids": 11, "decoder_input_ids": 5},
        implementations=("eager",),
        interface=False,
        arrange=folded,
    ),
    Case(
        "Funnel",
        "FunnelModel",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "n_head": 4,
            "d_head": 4,
            "d_inner": 20,
            "block_sizes": [1, 1],
            "num_decoder_layers": 1,
        },
        {
            "first": r"encoder\.blocks\.0\.0\.attention",
            "decoder": r"decoder\.layers\.0\.attention",
        },
        implementations=("eager",),
        interface=False,
    ),
    Case(
        "Funnel, pooled",
        "FunnelModel",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "n_head": 4,
            "d_head": 4,
            "d_inner": 20,
            "block_sizes": [1, 1, 1],
            "num_decoder_layers": 1,
        },
        {"pooled": r"encoder\.blocks\.2\.0\.attention"},
        {"input_ids": 12},
        {"": "OTHER"},
        sums=False,
        implementations=("eager",),
        interface=False,
    ),
    Case(
        "Reformer",
        "ReformerModel",
        {
            **SMALL,
            "attn_layers": ["local", "local"],
            "attention_head_size": 4,
            "feed_forward_size": 20,
            "axial_pos_embds": False,
            "is_decoder": False,
            "local_attn_chunk_length": 4,
            "lsh_attn_chunk_length": 4,
        },
        {"self": r"encoder\.layers\.\d\.attention\.self_attention"},
        {"input_ids": 8},
        {"": "APART"},
        sums=False,
        implementations=("eager",),
        interface=False,
    ),
)
