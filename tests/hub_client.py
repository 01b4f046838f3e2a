"""The Hub's real client, turned to a loopback server."""

import contextlib

from huggingface_hub import constants, file_download, hf_api
from huggingface_hub.utils import _http

from tests.hub_server import WRITE_TOKEN


class NoWait:
    """The module `time` of the client without its pauses between attempts."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return getattr(self.module, name)

    def sleep(self, seconds):
        pass


def point_client(monkeypatch, server, cache, token=WRITE_TOKEN):
    """Turns the client of this process to a server and a cache of its own."""
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hf_api.api, "endpoint", server.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", NoWait(module.time))
    use_token(monkeypatch, token)


def use_token(monkeypatch, token):
    """Logs the client in, or out with `None`."""
    monkeypatch.setenv("HF_TOKEN", token or "")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent")


@contextlib.contextmanager
def offline(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield


def environment(server, cache, token=WRITE_TOKEN):
    """The same for another process, as a person would set it."""
    return {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(cache),
        "HF_TOKEN": token or "",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
