"""As much of a W&B server, on the loopback, as a run needs: it keeps the history that it is sent, for a resumed run."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Answering(ThreadingHTTPServer):
    """One run. `history` is what the file stream brought, `exit_codes` how each process ended."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.history: list[str] = []
        self.summary = "{}"
        self.exit_codes: list[int] = []
        self.known = False

    def rows(self) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in json.loads(line).items() if not key.startswith("_")} for line in self.history
        ]

    def stream(self, sent: dict[str, Any]) -> None:
        files = sent.get("files") or {}
        if "wandb-history.jsonl" in files:
            chunk = files["wandb-history.jsonl"]
            self.history[chunk["offset"] :] = chunk["content"]
        if "wandb-summary.json" in files:
            self.summary = files["wandb-summary.json"]["content"][-1]
        if sent.get("complete"):
            self.exit_codes.append(sent["exitcode"])

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "rlexp", "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "x", "name": variables.get("name"), "displayName": "n", "config": "{}", "sweepName": None}
        bucket |= {"historyLineCount": len(self.history), "project": project}
        if "RunResumeStatus" in query:
            bucket |= {"logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "tags": [], "notes": None}
            bucket |= {"historyTail": json.dumps(self.history[-1:]), "summaryMetrics": self.summary}
            bucket |= {"wandbConfig": json.dumps({"t": 1})}
            return {"model": project | {"bucket": bucket}} if self.known else {"model": None}
        if "upsertBucket" in query:
            inserted, self.known = not self.known, True
            return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        viewer = {"id": "1", "entity": "me", "username": "me", "teams": {"edges": []}, "flags": "{}"}
        return {"viewer": viewer, "serverInfo": {}}


class Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            answer = {"data": self.server.answer(asked["query"], asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.server.stream(json.loads(body))
        payload = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_PUT = do_POST

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def answering_server() -> Iterator[Answering]:
    with Answering() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
