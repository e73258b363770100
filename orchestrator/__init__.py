"""Runs thousands of OpenAI-style asynchronous requests from one event loop."""

__version__ = "0.1.0"
