"""Reference models whose attention can be explained."""

from captum_attngrad.models.attention import AdditiveAttention
from captum_attngrad.models.lstm_classifier import AttentionLSTMClassifier
from captum_attngrad.models.minilm import FinetunedMiniLM, finetuned_minilm
from captum_attngrad.models.pretrained import TrainedLSTM, trained_lstm

__all__ = [
    "AdditiveAttention",
    "AttentionLSTMClassifier",
    "FinetunedMiniLM",
    "TrainedLSTM",
    "finetuned_minilm",
    "trained_lstm",
]
