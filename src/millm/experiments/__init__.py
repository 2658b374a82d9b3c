"""Experiments: one question answered at different steering strengths, side by side or in sequence.

They use the generation requests of the OpenAI endpoints, store nothing and leave the active steering unchanged.
"""
