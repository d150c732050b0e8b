"""Check on a model that attention is seen, and that its gradient is exact."""

from captum_attngrad.verification._verify import verify
from captum_attngrad.verification.verification import LayerVerification, Verification

__all__ = ["LayerVerification", "Verification", "verify"]
