"""What is loaded, attached and active, as changes of the state: checked first, then changed at once, then remembered.

One change at a time. One that fails leaves what was there before; one that is acknowledged survives a restart.
"""
