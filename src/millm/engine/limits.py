"""How large the engine makes things, for it and for whoever estimates what it will take. Knows no torch."""

PREFILL_CHUNK_TOKENS = {"cpu": 128, "cuda": 512}
"""Tokens of prompts per step: long enough to use the device, short enough that decoding streams do not stutter."""
MIN_CACHE_COLUMNS = 256
"""Columns of keys and values a row begins with; more are added by doubling."""
SCRATCH_COLUMNS = 1
"""Columns behind the last: nobody reads them, and rows that stand for nobody write there (`graphs.py`)."""
INT8_MIN_WEIGHTS = 2**16
"""Weights of a layer that gains from 8 bits on a CPU: a smaller one stays in a cache, where float32 is as fast."""
INT8_MAX_INPUTS = 2**17
"""Inputs of a layer whose sum of products (at most 128 · 127 each) still fits in an int32."""
INT8_BLOCK = 512
"""Inputs that fbgemm lays out together: a layer's are rounded up to that (measured on x86 with AVX-512)."""
NF4_BLOCK = 64
"""Weights that share a scale in 4 bits."""
