"""Reference models whose attention can be explained."""

from captum_attngrad.models.attention import AdditiveAttention
from captum_attngrad.models.g2p import TrainedG2P, trained_g2p
from captum_attngrad.models.lstm_classifier import AttentionLSTMClassifier
from captum_attngrad.models.minilm import FinetunedMiniLM, finetuned_minilm
from captum_attngrad.models.pretrained import TrainedLSTM, trained_lstm
from captum_attngrad.models.seq2seq import AttentionSeq2Seq

__all__ = [
    "AdditiveAttention",
    "AttentionLSTMClassifier",
    "AttentionSeq2Seq",
    "FinetunedMiniLM",
    "TrainedG2P",
    "TrainedLSTM",
    "finetuned_minilm",
    "trained_g2p",
    "trained_lstm",
]
