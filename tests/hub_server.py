"""A loopback server that speaks the part of the Hugging Face Hub that downloads need."""

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class HubServer(ThreadingHTTPServer):
    """Serves directories as repositories of one commit each.

    Args:
        repositories: dict of `organisation/name` to a directory.
        broken: set of file names that answer with an error 500.
    """

    daemon_threads = True

    def __init__(self, repositories, broken=()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.broken = set(broken)
        self.files = {
            name: {p.relative_to(root).as_posix(): p.read_bytes() for p in _files(root)}
            for name, root in repositories.items()
        }

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


def _files(root):
    return [path for path in Path(root).rglob("*") if path.is_file()]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        model = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(/tree/.+|/revision/.+)?", path)
        repository = (resolve or model)[1] if resolve or model else None
        files = self.server.files.get(repository)
        if files is None:
            return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
        commit = hashlib.sha1(repository.encode()).hexdigest()
        if resolve:
            name = resolve[2]
            if name in self.server.broken:
                return self.reply(500, b"")
            if name not in files:
                return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
            etag = hashlib.sha1(files[name]).hexdigest()
            return self.reply(200, files[name], {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})
        if (model[2] or "").startswith("/tree"):
            listing = [
                {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                for n, b in files.items()
            ]
        else:
            siblings = [{"rfilename": name} for name in files]
            listing = {"id": repository, "sha": commit, "siblings": siblings, "private": False}
        return self.reply(200, json.dumps(listing).encode())

    def reply(self, code, body, headers=()):
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
