"""A reference model whose attention can be explained."""

from captum_attngrad.models.attention import AdditiveAttention
from captum_attngrad.models.lstm_classifier import AttentionLSTMClassifier
from captum_attngrad.models.pretrained import TrainedLSTM, trained_lstm

__all__ = [
    "AdditiveAttention",
    "AttentionLSTMClassifier",
    "TrainedLSTM",
    "trained_lstm",
]
