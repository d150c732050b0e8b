"""Which words did an attention model use, for and against its answer?

Attention gradient for Captum: exact gradients of attention weights, on fused
attention too.
"""

from captum_attngrad.attr import (
    AttentionGradient,
    AttentionRelevance,
    AttentionRollout,
    AttentionWeights,
    IntegratedAttentionGradient,
    JointIntegratedGradients,
    LayerAttentionGradient,
    log_odds,
)
from captum_attngrad.capture import (
    AttentionCall,
    AttentionLayerInfo,
    AttentionLayers,
    AttentionRecord,
    capture_attention,
    find_attention_layers,
)
from captum_attngrad.compare import (
    Comparison,
    Method,
    TextBatch,
    TextModel,
    available_methods,
    register_method,
)
from captum_attngrad.datasets import MovieReview, MovieReviewSnippets
from captum_attngrad.metrics import (
    Comprehensiveness,
    Metric,
    Sufficiency,
    comprehensiveness,
    sufficiency,
)
from captum_attngrad.models import (
    AdditiveAttention,
    AttentionLSTMClassifier,
    FinetunedMiniLM,
    TrainedLSTM,
    finetuned_minilm,
    trained_lstm,
)
from captum_attngrad.text import (
    Vocab,
    WordTokenizer,
    build_vocab_from_iterator,
    import_torchtext,
    pad_batch,
)
from captum_attngrad.visualization import save_html, text_html, text_records

# Read from the source text by the build: keep it a plain string.
__version__ = "0.1.0"

# The function that compares is captum_attngrad.compare.compare: at the root its name
# would hide the package that it is in.
__all__ = [
    "AdditiveAttention",
    "AttentionCall",
    "AttentionGradient",
    "AttentionLSTMClassifier",
    "AttentionLayerInfo",
    "AttentionLayers",
    "AttentionRecord",
    "AttentionRelevance",
    "AttentionRollout",
    "AttentionWeights",
    "Comparison",
    "Comprehensiveness",
    "FinetunedMiniLM",
    "IntegratedAttentionGradient",
    "JointIntegratedGradients",
    "LayerAttentionGradient",
    "Method",
    "Metric",
    "MovieReview",
    "MovieReviewSnippets",
    "Sufficiency",
    "TextBatch",
    "TextModel",
    "TrainedLSTM",
    "Vocab",
    "WordTokenizer",
    "available_methods",
    "build_vocab_from_iterator",
    "capture_attention",
    "comprehensiveness",
    "find_attention_layers",
    "finetuned_minilm",
    "import_torchtext",
    "log_odds",
    "pad_batch",
    "register_method",
    "save_html",
    "sufficiency",
    "text_html",
    "text_records",
    "trained_lstm",
]
