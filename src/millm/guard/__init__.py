"""The outer wall: which addresses, web pages and requests are let through to the application at all.

Knows no route and no key: who is let through here may still be asked for one (`millm.access`).
"""
