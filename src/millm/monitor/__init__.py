"""What the server watches in every request, what it remembers of the last ones, and what can be asked of that.

Knows token ids and texts as it is given them; no model, no profile, no websocket.
"""
