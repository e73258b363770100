"""A pretend OpenAI on loopback.

Imports nothing of ours, so that one misunderstanding cannot be on both sides.
"""
