"""Images, video, sound, time series, and text with them."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.architectures.cases import (
    ENCODER_DECODER,
    IMAGE,
    SEQ2SEQ,
    SMALL,
    VOCABULARY,
    Case,
)

_FEATURES = {"": "FEATURES"}
_PIXELS = {"pixel_values": (3, 8, 8)}
_LLAMA = {**SMALL, "num_key_value_heads": 2, "model_type": "llama"}
_CLIP = {**IMAGE, "model_type": "clip_vision_model"}
_SIGLIP = {**IMAGE, "model_type": "siglip_vision_model"}
_TOWER = r".*vision.*layers\.\d\.self_attn"
_MODEL = r".*language_model\.layers\.\d\.self_attn"
IMAGE_TOKEN = 3


def with_image(count: int):
    def tokens(batch: int) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        ids = torch.randint(4, VOCABULARY, (batch, 3 + count), generator=generator)
        ids[:, 1 : 1 + count] = IMAGE_TOKEN
        return ids

    return tokens


def folded(weights: Tensor, batch: int) -> Tensor:
    return weights.unflatten(0, (batch, -1)).flatten(1, -3)


def windows_last(weights: Tensor, batch: int) -> Tensor:
    return weights.unflatten(0, (batch, -1)).flatten(1, -3)


VISION = (
    Case(
        "DeiT",
        "DeiTModel",
        IMAGE,
        {"self": r".*layers?\.\d\.attention(\.attention)?"},
        _PIXELS,
        _FEATURES,
        coincide=6,
        float32=True,
    ),
    Case(
        "BEiT",
        "BeitModel",
        IMAGE,
        {"self": r"encoder\.layer\.\d\.attention\.attention|.*layers\.\d\.attention"},
        _PIXELS,
        _FEATURES,
        coincide=5,
        float32=True,
    ),
    Case(
        "DINOv2",
        "Dinov2Model",
        IMAGE,
        {"self": r".*layers?\.\d\.attention(\.attention)?"},
        _PIXELS,
        _FEATURES,
        coincide=5,
    ),
    Case(
        "SigLIP",
        "SiglipModel",
        {
            "text_config": {
                **SMALL,
                "projection_size": 16,
                "max_position_embeddings": 64,
            },
            "vision_config": IMAGE,
        },
        {"text": r"text_model.*self_attn", "vision": r"vision_model.*self_attn"},
        {"input_ids": 7, "pixel_values": (3, 8, 8)},
        {"text": "TOKENS", "vision": "FEATURES"},
        output=(
            "text_model_output.last_hidden_state",
            "vision_model_output.last_hidden_state",
        ),
        float32=True,
    ),
    Case(
        "Swin",
        "SwinModel",
        {
            "image_size": 16,
            "patch_size": 2,
            "embed_dim": 8,
            "depths": [2, 1],
            "num_heads": [2, 4],
            "window_size": 2,
        },
        {
            "first": r"encoder\.layers\.0\.blocks\.\d\.attention(\.self)?",
            "second": r"encoder\.layers\.1\.blocks\.\d\.attention(\.self)?",
        },
        {"pixel_values": (3, 16, 16)},
        {"": "APART"},
        implementations=("eager",),
        sums=False,
        arrange=folded,
    ),
    Case(
        "PatchTST",
        "PatchTSTModel",
        {
            "num_input_channels": 3,
            "context_length": 12,
            "patch_length": 3,
            "patch_stride": 3,
            "d_model": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 20,
            "channel_attention": False,
        },
        {"self": r"encoder\.layers\.\d\.self_attn"},
        {"past_values": (12, 3)},
        {"": "APART"},
        sums=False,
        arrange=folded,
    ),
    Case(
        "PatchTST, channels",
        "PatchTSTModel",
        {
            "num_input_channels": 3,
            "context_length": 12,
            "patch_length": 3,
            "patch_stride": 3,
            "d_model": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 20,
            "channel_attention": True,
        },
        {"channels": r"encoder\.layers\.\d\.(channel_self_attn|self_attn)"},
        {"past_values": (12, 3)},
        {"": "APART"},
        sums=False,
        arrange=folded,
    ),
    Case(
        "TimeSformer",
        "TimesformerModel",
        {**IMAGE, "num_frames": 4},
        {
            "space": r"encoder\.layer\.\d\.attention\.attention",
            "time": r"encoder\.layer\.\d\.temporal_attention\.attention",
        },
        {"pixel_values": (4, 3, 8, 8)},
        {"": "APART"},
        sums=False,
        implementations=("eager",),
        interface=False,
        arrange=folded,
    ),
    Case(
        "SAM, vision",
        "SamVisionModel",
        {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "mlp_dim": 20,
            "image_size": 16,
            "patch_size": 4,
            "window_size": 2,
            "global_attn_indexes": [1],
            "output_channels": 4,
            "num_pos_feats": 4,
        },
        {"window": r".*layers\.0\.attn"},
        {"pixel_values": (3, 16, 16)},
        {"": "APART"},
        sums=False,
        interface=False,
        arrange=folded,
        float32=True,
    ),
    Case(
        "SAM, vision, global",
        "SamVisionModel",
        {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "mlp_dim": 20,
            "image_size": 16,
            "patch_size": 4,
            "window_size": 2,
            "global_attn_indexes": [1],
            "output_channels": 4,
            "num_pos_feats": 4,
        },
        {"global": r".*layers\.1\.attn"},
        {"pixel_values": (3, 16, 16)},
        _FEATURES,
        interface=False,
        arrange=folded,
        float32=True,
    ),
    Case(
        "CLIPSeg",
        "CLIPSegModel",
        {
            "text_config": {**SMALL, "eos_token_id": 47},
            "vision_config": IMAGE,
            "projection_dim": 8,
        },
        {"text": r"text_model.*self_attn", "vision": r"vision_model.*self_attn"},
        {"input_ids": 7, "pixel_values": (3, 8, 8)},
        {"text": "TOKENS", "vision": "FEATURES"},
        output=(
            "text_model_output.last_hidden_state",
            "vision_model_output.last_hidden_state",
        ),
        float32=True,
    ),
    Case(
        "Wav2Vec2",
        "Wav2Vec2Model",
        {
            **SMALL,
            "conv_dim": [8, 8],
            "conv_stride": [4, 4],
            "conv_kernel": [4, 4],
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
            "num_feat_extract_layers": 2,
            "feat_proj_dropout": 0.0,
        },
        {"self": r"encoder\.layers\.\d\.attention"},
        {"input_values": (112,)},
        _FEATURES,
    ),
    Case(
        "DETR",
        "DetrModel",
        {
            **{k: v for k, v in SEQ2SEQ.items() if k != "vocab_size"},
            "num_queries": 5,
            "use_timm_backbone": False,
            "backbone": None,
            "backbone_config": lambda: _resnet(),
        },
        {
            "encoder": ENCODER_DECODER["encoder"],
            "cross": r"decoder\.layers\.\d\.encoder_attn",
        },
        {"pixel_values": (3, 16, 16)},
        _FEATURES,
    ),
    Case(
        "Deformable DETR",
        "DeformableDetrModel",
        {
            **{k: v for k, v in SEQ2SEQ.items() if k != "vocab_size"},
            "num_queries": 5,
            "use_timm_backbone": False,
            "backbone": None,
            "num_feature_levels": 1,
            "encoder_n_points": 2,
            "decoder_n_points": 2,
            "backbone_config": lambda: _resnet(),
        },
        {"decoder": ENCODER_DECODER["decoder"]},
        {"pixel_values": (3, 16, 16)},
        {"": "CONSTANT"},
    ),
    Case(
        "Perceiver",
        "PerceiverModel",
        {
            "num_latents": 5,
            "d_latents": 16,
            "d_model": 12,
            "num_blocks": 1,
            "num_self_attends_per_block": 2,
            "num_self_attention_heads": 4,
            "num_cross_attention_heads": 4,
            "vocab_size": VOCABULARY,
        },
        {"cross": r"encoder\.cross_attention\.attention\.self"},
        {"inputs": (7, 12)},
        {"": "TOKENS"},
        implementations=("eager",),
        interface=False,
    ),
    Case(
        "LLaVA",
        "LlavaModel",
        {
            "text_config": _LLAMA,
            "vision_config": _CLIP,
            "image_token_id": IMAGE_TOKEN,
            "vision_feature_layer": -1,
        },
        {"text": _MODEL, "vision": _TOWER},
        {"input_ids": with_image(4), "pixel_values": (3, 8, 8)},
        {"text": "MIXED", "vision": "FEATURES"},
        float32=True,
    ),
    Case(
        "PaliGemma",
        "PaliGemmaModel",
        {
            "text_config": {**_LLAMA, "model_type": "gemma", "head_dim": 4},
            "vision_config": _SIGLIP,
            "image_token_id": IMAGE_TOKEN,
            "projection_dim": 16,
        },
        {"text": _MODEL, "vision": _TOWER},
        {"input_ids": with_image(4), "pixel_values": (3, 8, 8)},
        {"text": "MIXED", "vision": "FEATURES"},
        implementations=("eager",),
        float32=True,
    ),
    Case(
        "Idefics3",
        "Idefics3Model",
        {
            "text_config": _LLAMA,
            "vision_config": {**IMAGE, "model_type": "idefics3_vision"},
            "image_token_id": IMAGE_TOKEN,
            "scale_factor": 2,
        },
        {
            "text": r"text_model\.layers\.\d\.self_attn",
            "vision": r"vision_model.*self_attn",
        },
        {"input_ids": with_image(1), "pixel_values": (1, 3, 8, 8)},
        {"text": "MIXED", "vision": "FEATURES"},
        float32=True,
    ),
    Case(
        "BLIP-2",
        "Blip2Model",
        {
            "vision_config": IMAGE,
            "qformer_config": {
                **SMALL,
                "encoder_hidden_size": 16,
                "cross_attention_frequency": 1,
            },
            "text_config": {
                **SMALL,
                "ffn_dim": 20,
                "word_embed_proj_dim": 16,
                "model_type": "opt",
            },
            "num_query_tokens": 3,
            "image_token_id": IMAGE_TOKEN,
        },
        {
            "vision": r"vision_model.*self_attn",
            "text": r"language_model.*self_attn",
            "cross": r"qformer.*crossattention\.attention",
        },
        {"pixel_values": (3, 8, 8), "input_ids": with_image(3)},
        {"text": "MIXED", "vision": "FEATURES", "cross": "FEATURES"},
        output=("language_model_outputs.logits",),
        float32=True,
    ),
    Case(
        "MusicGen, decoder",
        "MusicgenForCausalLM",
        {
            **{k: v for k, v in SMALL.items() if k not in ("intermediate_size",)},
            "ffn_dim": 20,
            "num_codebooks": 1,
        },
        {"self": r"model\.decoder\.layers\.\d\.self_attn"},
        {"input_ids": 7},
        output=("logits",),
    ),
)


def _resnet():
    from transformers import ResNetConfig

    return ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )
