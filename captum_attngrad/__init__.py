"""Which words did an attention model use, for and against its answer?

Attention gradient for Captum: exact gradients of attention weights, on fused
attention too.
"""

from captum_attngrad.attr import (
    AttentionGradient,
    AttentionRelevance,
    AttentionRollout,
    AttentionWeights,
    GeneratedExplanation,
    IntegratedAttentionGradient,
    LayerAttentionGradient,
    SequenceAttentionGradient,
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
from captum_attngrad.datasets import (
    DictionaryEntry,
    MovieReview,
    MovieReviewSnippets,
    PronouncingDictionary,
)
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
    AttentionSeq2Seq,
    TrainedG2P,
    TrainedLSTM,
    trained_g2p,
    trained_lstm,
)
from captum_attngrad.text import (
    Vocab,
    WordTokenizer,
    build_vocab_from_iterator,
    edit_distance,
    pad_batch,
    phoneme_error_rate,
    word_error_rate,
)
from captum_attngrad.visualization import (
    merge_word_pieces,
    plot_alignment,
    plot_heads,
    plot_token_scores,
    save_html,
    text_html,
    text_records,
)

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
    "AttentionSeq2Seq",
    "AttentionWeights",
    "Comparison",
    "Comprehensiveness",
    "DictionaryEntry",
    "GeneratedExplanation",
    "IntegratedAttentionGradient",
    "LayerAttentionGradient",
    "Method",
    "Metric",
    "MovieReview",
    "MovieReviewSnippets",
    "PronouncingDictionary",
    "SequenceAttentionGradient",
    "Sufficiency",
    "TextBatch",
    "TextModel",
    "TrainedG2P",
    "TrainedLSTM",
    "Vocab",
    "WordTokenizer",
    "available_methods",
    "build_vocab_from_iterator",
    "capture_attention",
    "comprehensiveness",
    "edit_distance",
    "find_attention_layers",
    "merge_word_pieces",
    "pad_batch",
    "phoneme_error_rate",
    "plot_alignment",
    "plot_heads",
    "plot_token_scores",
    "register_method",
    "save_html",
    "sufficiency",
    "text_html",
    "text_records",
    "trained_g2p",
    "trained_lstm",
    "word_error_rate",
]
