"""Requests as people write them: a JSONL file, or mappings given by a program.

A request is one of

- a line in OpenAI Batch format: `{"custom_id": ..., "method": "POST", "url": ..., "body": {...}}`,
- a bare body: `{"model": ..., "input": ...}` or `{"model": ..., "messages": [...]}`,
- a prompt: `{"prompt": "..."}`, with any other members of a body,

and the last two may have `custom_id` and `url` beside their members. What a request doesn't say,
`RequestDefaults` do.
"""

from orchestrator.adapters.request_file.file import FileSummary, RequestFile
from orchestrator.adapters.request_file.given import request_from
from orchestrator.adapters.request_file.line import RequestDefaults, Sendable

__all__ = ["FileSummary", "RequestDefaults", "RequestFile", "Sendable", "request_from"]
