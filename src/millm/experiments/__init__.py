"""Experiments with a steering: the same question answered with more or less of it, side by side or one after another.

An answer here is an ordinary one: the jobs and pieces are those of the OpenAI endpoints. Nothing is remembered, and
nothing that steers the server is changed.
"""
