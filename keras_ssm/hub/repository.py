"""A repository on the Hub, as publishing sees it."""

import hashlib
import tempfile
from pathlib import Path

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import RepositoryNotFoundError

from keras_ssm import presets

DEFAULT_BRANCH = "main"
_MODEL_FILES = ("config.json", ".weights.h5", ".safetensors", ".bin", ".keras", ".gguf")


class Repository:
    """One branch of a repository, which is made if it does not exist.

    Args:
        repo_id: str. `"organisation/name"`.
        branch: str. The branch.
        private: bool. Whether the repository must be private.
        token: str or `None`. Defaults to that of `HF_TOKEN` or of `hf auth login`.
        kind: str. `"model"`, or `"space"`: of Gradio, if it is made. Defaults to `"model"`.

    Raises:
        ValueError: if a public repository stands where a private one is asked for, or the
            branch is the name of a tag or a commit.
    """

    def __init__(self, repo_id, branch, private, token, kind="model"):
        self.repo_id, self.branch, self.kind = repo_id, branch, kind
        self.api = huggingface_hub.HfApi(token=token, library_name="keras_ssm")
        try:
            info = self.api.repo_info(repo_id, repo_type=kind)
        except RepositoryNotFoundError:
            made = {"space_sdk": "gradio"} if kind == "space" else {}
            self.api.create_repo(repo_id, private=private, repo_type=kind, **made)
            info = self.api.repo_info(repo_id, repo_type=kind)
        if private and not info.private:
            raise ValueError(
                f"Repository '{repo_id}' exists and is public: nothing was uploaded. "
                f"Received: private={private}"
            )
        refs = self.api.list_repo_refs(repo_id, repo_type=kind)
        if branch not in {ref.name for ref in refs.branches} | {DEFAULT_BRANCH}:
            if branch in {ref.name for ref in refs.tags} or _is_commit(branch):
                raise ValueError(
                    "`revision` must be a branch, or the name of a new one. "
                    f"Received: revision={branch!r}"
                )
            self.api.create_branch(repo_id, branch=branch, repo_type=kind, exist_ok=True)
        self.head = self.api.repo_info(repo_id, repo_type=kind, revision=branch).sha
        tree = self.api.list_repo_tree(repo_id, recursive=True, repo_type=kind, revision=self.head)
        self.files = {
            entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
            for entry in tree
            if hasattr(entry, "blob_id")
        }

    def read(self, name):
        """Returns the content of a file, bytes, or `None` if there is no such file."""
        if name not in self.files:
            return None
        with tempfile.TemporaryDirectory() as scratch:
            path = self.api.hf_hub_download(
                self.repo_id,
                name,
                repo_type=self.kind,
                revision=self.head,
                cache_dir=scratch,
            )
            return Path(path).read_bytes()

    def holds(self, name, content):
        """Whether a file of the repository is this one: a `Path`, or bytes."""
        checksum = self.files.get(name)
        if checksum is None or len(checksum) == 64:
            return checksum == _sha256(content)
        data = content.read_bytes() if isinstance(content, Path) else content
        return checksum == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def holds_another_model(self):
        """Whether the repository holds a model that is no preset of this package."""
        return presets.PRESET_FILE not in self.files and any(
            name.endswith(_MODEL_FILES) for name in self.files
        )

    def commit(self, added, deleted, message):
        """Adds and deletes files in one commit, on top of the state that was looked at.

        Args:
            added: dict of name to `Path` or bytes.
            deleted: collection of names.
            message: str.

        Returns:
            Str. The commit.
        """
        operations = [
            CommitOperationAdd(name, str(c) if isinstance(c, Path) else c)
            for name, c in added.items()
        ]
        operations += [CommitOperationDelete(name) for name in deleted]
        return self.api.create_commit(
            self.repo_id,
            operations,
            commit_message=message,
            repo_type=self.kind,
            revision=self.branch,
            parent_commit=self.head,
        ).oid


def _is_commit(name):
    return len(name) == 40 and set(name) <= set("0123456789abcdef")


def _sha256(content):
    if isinstance(content, Path):
        return presets.sha256(content)
    return hashlib.sha256(content).hexdigest()
