"""Requests as people write them: a JSONL file, or mappings given by a program."""

from orchestrator.adapters.request_file.file import FileSummary, RequestFile
from orchestrator.adapters.request_file.given import request_from
from orchestrator.adapters.request_file.line import RequestDefaults

__all__ = ["FileSummary", "RequestDefaults", "RequestFile", "request_from"]
