"""Sizes that the engine uses and the memory estimate needs to know. Imports no torch."""

PREFILL_CHUNK_TOKENS = {"cpu": 128, "cuda": 512}
"""Prompt tokens per step: long enough to use the device, short enough not to delay decoding sequences."""
MIN_CACHE_COLUMNS = 256  # Initial columns of keys and values per row; doubled as needed
SCRATCH_COLUMNS = 1  # Columns behind the last, which are never attended to: padding rows write there (`cuda_graphs.py`)
INT8_MIN_WEIGHTS = 2**16
"""Smallest layer that gains from 8 bits on a CPU: a smaller one stays in the CPU's cache, where float32 is as fast."""
INT8_MAX_INPUTS = 2**17  # Most inputs of a layer whose sum of products (at most 128 · 127 each) fits in an int32
INT8_BLOCK = 512  # fbgemm pads a layer's inputs to a multiple of this (measured on x86 with AVX-512)
NF4_BLOCK = 64  # Weights that share a scale in 4 bits
