"""How large the tables of a tap are, for it and for whoever estimates what it will take. Knows no torch."""

MAX_TABLE_ROWS = 64
"""Distinct (steering, watch list) pairs live at once."""
MAX_WATCHED_FEATURES = 192
"""Of one SAE and sequence: 128 that a request asks for, and 64 that the server watches."""
FEATURE_BANK_SIZE = 4096
"""Features whose rows are resident at once, over all live rows; 2 · 4096 · d_model · 4 bytes."""
