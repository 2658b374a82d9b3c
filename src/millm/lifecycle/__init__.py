"""Changes of the loaded model, the attached SAEs and the active steering, one at a time.

A change is checked first, then applied, then stored. A failed change leaves the previous state; an acknowledged one
survives a restart.
"""
