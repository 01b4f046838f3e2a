"""A loopback server that speaks the part of the Hugging Face Hub that presets need.

Repositories are branches, tags and commits over dicts of files. `HubServer.break_` makes chosen
answers fail; `HubServer.requests` is what was asked for.
"""

import base64
import contextlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.hub_repository import Repository, blob_id, digest

WRITE_TOKEN, READ_TOKEN = "hf_write", "hf_read"


class HubServer(ThreadingHTTPServer):
    """Serves repositories on a free port of the loopback interface, from its own thread.

    Args:
        repositories: dict of `organisation/name` to a directory.
        lfs: tuple of str. Endings of the files that go through large file storage.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, repositories=(), lfs=()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lfs, self.large, self.faults, self.requests = tuple(lfs), {}, {}, []
        self.connections, self.ranges = [], []  # first bytes of the answers to a Range
        self.repositories, self.lock = {}, threading.Lock()
        for name, root in dict(repositories).items():
            self.add(name, {p.relative_to(root).as_posix(): p.read_bytes() for p in _files(root)})
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name, files, private=False):
        """Makes a repository of one commit; returns it."""
        self.repositories[name] = repository = Repository(private)
        repository.commit(files)
        return repository

    def break_(self, name, fault, times=10**6):
        """Lets requests whose path ends in `name` fail: see `_Handler.fail`."""
        self.faults[name] = [fault, times]

    def get_request(self):
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def stop(self):
        """Ends the server and the connections that clients keep open."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def is_large(self, name):
        return bool(self.lfs) and name.endswith(self.lfs)

    def handle_error(self, request, client_address):
        pass  # a client that hung up


def _files(root):
    return [path for path in Path(root).rglob("*") if path.is_file()]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    routes = []
    fault = None

    def log_message(self, *args):
        pass

    def answer(self):
        quoted = urlsplit(self.path).path  # a branch may have a "/" in its name
        path = unquote(quoted)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.requests.append((self.command, path))
            fault = self.due_fault(path)
        if fault is not None and self.fail(fault):
            return None
        self.fault = fault
        # Spaces have the routes of models; their repositories are `spaces/organisation/name`.
        plain = quoted.replace("/api/spaces/", "/api/models/", 1).removeprefix("/spaces")
        for pattern, method in self.routes:
            if match := re.fullmatch(pattern, plain):
                groups = [g and unquote(g) for g in match.groups()]
                if plain != quoted:
                    groups[0] = f"spaces/{groups[0]}"
                return method(self, *groups)
        return self.error(404, "NoRoute")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    # Faults

    def due_fault(self, path):
        for name, entry in self.server.faults.items():
            if path.endswith(name) and entry[1] > 0:
                # Only the answer to GET has a cut or changed body.
                if isinstance(entry[0], str) and self.command == "HEAD":
                    continue
                entry[1] -= 1
                return entry[0]
        return None

    def fail(self, fault):
        """An int is an HTTP error, a float a delay in seconds; "cut", "changed": see `reply`.

        A callable waits for whatever it needs to have happened and returns one of these.
        """
        if callable(fault):
            fault = fault()
        if isinstance(fault, float):
            time.sleep(fault)
        elif isinstance(fault, int):
            self.error(fault, "Broken")
            return True
        return False

    # Answers

    def reply(self, code, body=b"", headers=()):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        length = len(body)
        if self.fault == "changed" and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        if self.fault == "cut":
            body, self.close_connection = body[: length // 2], True
        self.send_response(code)
        for key, value in {"Content-Length": str(length), **dict(headers)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, code, what, headers=()):
        self.fault = None
        self.reply(
            code, {"error": what}, {"X-Error-Code": what, "X-Error-Message": what, **dict(headers)}
        )

    def token(self):
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def opened(self, name, write=False):
        """The repository, or `None` after the error that the Hub answers."""
        repository, token = self.server.repositories.get(name), self.token()
        if token not in ("", READ_TOKEN, WRITE_TOKEN):
            return self.error(401, "Invalid credentials in Authorization header")
        if write and token != WRITE_TOKEN:
            return self.error(403 if token else 401, "Forbidden")
        if repository is None or (repository.private and not token):
            return self.error(401 if not token else 404, "RepoNotFound")
        return repository

    def create(self):
        request = json.loads(self.body)
        if self.token() != WRITE_TOKEN:
            return self.error(403 if self.token() == READ_TOKEN else 401, "Forbidden")
        name = f"{request['organization']}/{request['name']}"
        if request.get("type") == "space":
            if request.get("sdk") != "gradio":
                return self.error(400, "sdk must be one of gradio, docker, static")
            name = f"spaces/{name}"
        code = 409 if name in self.server.repositories else 200
        if code == 200:
            private = request.get("visibility") == "private" or request.get("private", False)
            self.server.add(name, {".gitattributes": b"*.h5 filter=lfs\n"}, private)
        return self.reply(code, {"url": f"{self.server.endpoint}/{name}"})

    def validate_yaml(self):
        text = json.loads(self.body)["content"]
        errors = [] if text.startswith("---\n") else [{"message": "no front matter"}]
        if json.loads(self.body).get("repoType") == "space" and "\nsdk: gradio\n" not in text:
            errors.append({"message": '"sdk" is required'})
        self.reply(400 if errors else 200, {"errors": errors, "warnings": []})

    def info(self, name, revision):
        if repository := self.opened(name):
            oid = repository.find(revision or "main")
            if oid is None:
                return self.error(404, "RevisionNotFound")
            siblings = [{"rfilename": path} for path in repository.files(oid)]
            self.reply(
                200,
                {"id": name, "sha": oid, "siblings": siblings, "private": repository.private},
            )

    def refs(self, name):
        if repository := self.opened(name):
            self.reply(
                200,
                {
                    kind: [
                        {"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": oid}
                        for n, oid in getattr(repository, kind).items()
                    ]
                    for kind, folder in (("branches", "heads"), ("tags", "tags"))
                }
                | {"converts": []},
            )

    def create_branch(self, name, branch):
        if repository := self.opened(name, write=True):
            repository.branches.setdefault(branch, repository.find("main"))
            self.reply(200, {})

    def tree(self, name, revision):
        if repository := self.opened(name):
            self.reply(200, [self.entry(n, d) for n, d in repository.files(revision).items()])

    def entry(self, name, data):
        large = {"oid": digest(data), "size": len(data), "pointerSize": 130}
        return {
            "type": "file",
            "path": name,
            "size": len(data),
            "oid": blob_id(data),
            **({"lfs": large} if self.server.is_large(name) else {}),
        }

    def resolve(self, name, revision, path):
        if repository := self.opened(name):
            oid = repository.find(revision)
            if oid is None:
                return self.error(404, "RevisionNotFound")
            data = repository.files(oid).get(path)
            headers = {"X-Repo-Commit": oid}
            if data is None:
                return self.error(404, "EntryNotFound", headers)
            if not self.server.is_large(path):
                return self.send_bytes(data, {**headers, "ETag": f'"{blob_id(data)}"'})
            # Another origin than 127.0.0.1, as storage is on the Hub.
            self.server.large[digest(data)] = data
            headers |= {"X-Linked-Etag": f'"{digest(data)}"', "X-Linked-Size": str(len(data))}
            address = f"http://localhost:{self.server.server_address[1]}/storage/{digest(data)}"
            self.reply(302, b"", {**headers, "Location": address})

    def send_bytes(self, data, headers=()):
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
            self.server.ranges.append(start)
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self.reply(206, data[start:], {**dict(headers), "Content-Range": span})
        return self.reply(200, data, headers)

    def storage(self, oid):
        if self.command == "PUT":
            self.server.large[oid] = self.body
            return self.reply(200)
        return self.send_bytes(self.server.large[oid], {"ETag": f'"{oid}"'})

    def preupload(self, name, revision):
        if repository := self.opened(name, write=True):
            have = repository.files(revision)
            files = [f["path"] for f in json.loads(self.body)["files"]]
            modes = {n: "lfs" if self.server.is_large(n) else "regular" for n in files}
            oids = {
                n: digest(d) if self.server.is_large(n) else blob_id(d) for n, d in have.items()
            }
            answer = [
                {"path": n, "uploadMode": modes[n], "shouldIgnore": False, "oid": oids.get(n)}
                for n in files
            ]
            self.reply(200, {"files": answer})

    def batch(self, name):
        if self.opened(name, write=True):
            objects = json.loads(self.body)["objects"]
            for one in objects:
                if one["oid"] not in self.server.large:
                    href = f"{self.server.endpoint}/storage/{one['oid']}"
                    one["actions"] = {"upload": {"href": href}}
            self.reply(200, {"transfer": "basic", "objects": objects})

    def commit(self, name, branch):
        if repository := self.opened(name, write=True):
            header, *operations = map(json.loads, self.body.splitlines())
            parent = header["value"].get("parentCommit")
            if parent not in (None, repository.find(branch)):
                return self.error(412, "Precondition failed")
            files = dict(repository.files(branch))
            for operation in operations:
                value = operation["value"]
                if operation["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif operation["key"] == "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]]
                else:
                    del files[value["path"]]
            oid = repository.commit(files, branch)
            url = f"{self.server.endpoint}/{name}/commit/{oid}"
            self.reply(200, {"success": True, "commitOid": oid, "commitUrl": url})


REPO = "([^/]+/[^/]+)"
_Handler.routes = [
    ("/api/repos/create", _Handler.create),
    ("/api/validate-yaml", _Handler.validate_yaml),
    (f"/api/models/{REPO}/refs", _Handler.refs),
    (f"/api/models/{REPO}/branch/(.+)", _Handler.create_branch),
    (f"/api/models/{REPO}/tree/([^/]+)", _Handler.tree),
    (f"/api/models/{REPO}/preupload/([^/]+)", _Handler.preupload),
    (f"/api/models/{REPO}/commit/([^/]+)", _Handler.commit),
    (f"/api/models/{REPO}(?:/revision/([^/]+))?", _Handler.info),
    (f"/{REPO}\\.git/info/lfs/objects/batch", _Handler.batch),
    (f"/{REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("/storage/([0-9a-f]{64})", _Handler.storage),
]
