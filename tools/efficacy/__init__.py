"""Measure the effect of the demo's profiles by strength, against the base model and a system prompt."""
