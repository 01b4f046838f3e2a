"""The page as a Space of the Hugging Face Hub: uploaded in one commit, and compared."""

import tempfile
from pathlib import Path

import huggingface_hub

from keras_ssm import presets
from keras_ssm.hub.publishing import check_repo_id
from keras_ssm.hub.repository import DEFAULT_BRANCH, Repository
from keras_ssm.version import __version__
from keras_ssm.web.space import APP_FILE, write_space
from keras_ssm.web.space_publication import SpacePublication

_OURS = b"keras_ssm"


def publish_space(
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    backend: str | None = None,
) -> SpacePublication:
    """Publishes the page as a Space, with the package and the presets that it shows.

    The files of `write_space` are uploaded in one commit, which takes away files of the package
    that are no more; other files stay. What was published is downloaded and compared. A Space that
    holds all of it already is left as it is.

    Args:
        repo_id: str. `"organisation/name"`; the Space is made if there is none.
        private: bool. Whether the Space must be private. Defaults to `False`.
        revision: str or `None`. Branch, made if there is none. Defaults to `"main"`, which runs.
        token: str or `None`. A token with write access. Defaults to that of `HF_TOKEN` or of
            `hf auth login`.
        dry_run: bool. Tell what would be uploaded to an empty Space, without a request to the
            Hub. Defaults to `False`.
        overwrite: bool. Whether another Space that stands there may be replaced.
            Defaults to `False`.
        backend: str or `None`. Keras backend of the Space. Defaults to the current one.

    Returns:
        `SpacePublication`.

    Raises:
        ValueError: as `write_space`; if another Space stands there or is public where a private
            one is asked for, the token does not allow it, the Hub cannot be reached, or what
            comes back differs.

    Example:
        ```python
        done = keras_ssm.web.publish_space("me/demo", dry_run=True)
        print("\\n".join(done.describe()))
        ```
    """
    check_repo_id(repo_id)
    branch = revision or DEFAULT_BRANCH
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "space"
        files = {name: directory / name for name in write_space(directory, backend)}
        if dry_run:
            return SpacePublication(repo_id, branch, None, tuple(files), ())
        with presets.explained(f"The page was not published to '{repo_id}'."):
            repository = Repository(repo_id, branch, private, token, kind="space")
            if not overwrite:
                _check_content(repository)
            added = {n: path for n, path in files.items() if not repository.holds(n, path)}
            deleted = sorted(
                name
                for name in repository.files
                if name.startswith("keras_ssm/") and name not in files
            )
            commit = repository.head
            if added or deleted:
                message = f"The page of keras_ssm {__version__}"
                commit = repository.commit(added, deleted, message)
            _compare(repo_id, commit, token, files)
    return SpacePublication(repo_id, branch, commit, tuple(sorted(added)), tuple(deleted))


def _check_content(repository):
    """Refuses to replace a Space of somebody else's making."""
    page = repository.read(APP_FILE)
    others = set(repository.files) - {".gitattributes", presets.CARD_FILE}
    if others if page is None else _OURS not in page:
        raise ValueError(
            f"Space '{repository.repo_id}' holds another application; `overwrite` replaces it. "
            f"Received: {sorted(repository.files)[:10]}"
        )


def _compare(repo_id, commit, token, files):
    """Downloads what was published into a fresh cache, and compares it byte by byte."""
    with tempfile.TemporaryDirectory() as scratch:
        snapshot = huggingface_hub.snapshot_download(
            repo_id, repo_type="space", revision=commit, token=token, cache_dir=scratch
        )
        differ = [
            name
            for name, path in files.items()
            if not (Path(snapshot) / name).is_file()
            or (Path(snapshot) / name).read_bytes() != path.read_bytes()
        ]
    if differ:
        raise ValueError(
            f"What '{repo_id}' returns at commit {commit} must equal what was published. "
            f"Received: {len(differ)} files that differ, {differ[:5]}"
        )
