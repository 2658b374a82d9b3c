"""SAE files as their publishers lay them out, and the one form in which miLLM keeps them."""

from millm.sae.formats.detect import canonicalise

__all__ = ["canonicalise"]
