"""A small batch server of which each answer can be replaced, to be as hostile as real ones are."""

import asyncio
import json
import re
from collections import Counter

from orchestrator.service import Orchestrator
from support.fake_server import FakeServer, answer_of, client_of


def chat_body(text="ok", **more):
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return {"id": "chatcmpl-1", "choices": choices, "usage": usage, **more}


def line(custom_id, status_code=200, body=None, **more):
    response = {"status_code": status_code, "request_id": "r", "body": body or chat_body()}
    return {"custom_id": custom_id, "response": response, "error": None, **more}


def jsonl(lines):
    encoded = (one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in lines)
    return b"".join(encoded)


def chats(number, **body):
    for n in range(number):
        messages = [{"role": "user", "content": f"hi {n}"}]
        yield {
            "custom_id": f"c{n}",
            "url": "/v1/chat/completions",
            "body": {"messages": messages, **body},
        }


class BatchServer:
    """Batches that are over when they are first looked at.

    `hooks` replace answers by name (upload, create, list, get, content): each is called with the
    server and with what would give the ordinary answer. `ends` may change a batch that ends, and
    `output` gives the bytes of its output file.
    """

    def __init__(self, *, ends=None, output=None, **hooks):
        self.hooks = hooks
        self.ends = ends or (lambda batch: None)
        self.output = output
        self.files, self.batches = {}, {}
        self.counts = Counter()
        self.fake = FakeServer(self.answer)

    def answer(self, request):
        path = request.url.path.removeprefix("/v1")
        name, ordinary = self.ordinary(request, request.method, path, path.split("/"))
        self.counts[name] += 1
        hook = self.hooks.get(name)
        return hook(self, ordinary) if hook else ordinary()

    def ordinary(  # noqa: PLR0911 - one for each route
        self, request, method, path, parts
    ):
        if (method, path) == ("POST", "/files"):
            return "upload", lambda: self.uploaded(request.content)
        if (method, path) == ("POST", "/batches"):
            return "create", lambda: self.created(json.loads(request.content))
        if (method, path) == ("GET", "/batches"):
            return "list", lambda: {"data": [self.looked_at(b) for b in reversed(self.batches)]}
        if method == "GET" and parts[1] == "batches":
            return "get", lambda: self.looked_at(parts[2])
        if parts[-1] == "content":
            return "content", lambda: answer_of(self.content(parts[2].removeprefix("out-")))
        if parts[-1] == "cancel":
            return "cancel", lambda: self.batches[parts[2]] | {"status": "cancelling"}
        return "other", lambda: answer_of({"error": {"message": "unknown"}}, 404)

    def uploaded(self, form):
        file_id = f"file-{len(self.files)}"
        found = re.findall(rb'^\{"custom_id".*$', form, re.MULTILINE)
        self.files[file_id] = [json.loads(text)["custom_id"] for text in found]
        return {"id": file_id}

    def created(self, body):
        batch_id = f"batch_{len(self.batches)}"
        self.batches[batch_id] = {
            "id": batch_id,
            "status": "in_progress",
            "input_file_id": body["input_file_id"],
            "metadata": body["metadata"],
        }
        return self.batches[batch_id]

    def looked_at(self, batch_id):
        batch = self.batches[batch_id]
        if batch["status"] == "in_progress":
            counts = {"total": 1, "completed": 1, "failed": 0}
            ended = {"status": "completed", "output_file_id": f"out-{batch_id}"}
            batch |= {"request_counts": counts, **ended}
            self.ends(batch)
        return batch

    def content(self, batch_id):
        if self.output is not None:
            return self.output()
        return jsonl(line(name) for name in self.files[self.batches[batch_id]["input_file_id"]])


async def run_by_batch(server, requests, *, seconds_max=7 * 86_400, **options):
    """The results by custom_id, and the orchestrator; a hang is a TimeoutError."""
    client = client_of(server.fake, api_key="sk-SECRET", max_retries=0)
    orchestrator = Orchestrator(client, **{"model": "m", "via": "batch", "seed": 1, **options})
    async with asyncio.timeout(seconds_max), orchestrator:
        results = {r.custom_id: r async for r in orchestrator.run_many(requests)}
    return results, orchestrator
