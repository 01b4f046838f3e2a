"""A preset from the Hugging Face Hub: every file from one commit, verified, or an error."""

from pathlib import Path

from keras_ssm.presets.found_preset import FoundPreset
from keras_ssm.presets.hub_checksums import unlike_the_hub
from keras_ssm.presets.hub_errors import explained
from keras_ssm.presets.plain_preset import verify_plain
from keras_ssm.presets.preset_files import (
    PRESET_FILE,
    check_document,
    check_unlisted,
    complaints,
    read,
    verified,
    vouching,
)
from keras_ssm.presets.published_models import DESCRIBING, published_format, weight_names
from keras_ssm.types import PathLike

SCHEME = "hf://"


def download(
    repo_id: str,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: PathLike | None = None,
) -> Path:
    """Downloads what a preset consists of, at one commit, into the cache of the Hub's client.

    `preset.json` comes first and says which files belong to the preset; nothing else of the
    repository is downloaded. A file of the cache that is damaged is downloaded once more. Where
    the Hub cannot be reached, what a former download left in the cache is used.

    Args:
        repo_id: str. `"organisation/name"`.
        revision: str or `None`. Branch, tag or commit. Defaults to the main branch.
        token: str or `None`. Defaults to that of `HF_TOKEN` or of `hf auth login`.
        cache_dir: str, `Path` or `None`. Defaults to the client's cache.

    Returns:
        `Path` of the snapshot, a verified preset. Its name is the commit.

    Raises:
        ValueError: if there is no such preset, the token does not open it, it could not be
            downloaded, or it is no valid preset.
    """
    return fetch(repo_id, revision, token, cache_dir).directory


def fetch(
    repo_id: str,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: PathLike | None = None,
    weights: bool = True,
) -> FoundPreset:
    """`download`, with what its `preset.json` says: returns a `FoundPreset`.

    Repositories in the format of another library are downloaded as well; without `weights` the
    files of their weights stay there.
    """
    snapshot = _Snapshot(repo_id, token, cache_dir)
    directory = snapshot.fetch_document(revision)
    if directory is None:
        return snapshot.fetch_others(revision, weights)
    checksums = vouching(directory)
    try:
        document = read(directory, checksums)
    except ValueError:
        snapshot.fetch_again(directory, [PRESET_FILE])
        checksums = vouching(directory)
        document = read(directory, checksums)
    check_document(document, directory)
    names = list(document["files"])
    if not all((directory / name).is_file() for name in names):
        snapshot.fetch(directory.name, names)
    if damaged := list(complaints(directory, document)):
        snapshot.fetch_again(directory, damaged)
        return verified(directory)
    check_unlisted(directory, document)
    return FoundPreset(directory, document, checksums)


class _Snapshot:
    """Requests to the client, for `download`, with explained errors."""

    def __init__(self, repo_id, token, cache_dir):
        self.where = {"repo_id": repo_id, "token": token, "cache_dir": cache_dir}
        self.failure = f"Preset '{SCHEME}{repo_id}' could not be downloaded; nothing was loaded."

    def fetch_document(self, revision):
        """The snapshot's directory with its `preset.json`, or `None` if it has none."""
        import huggingface_hub
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

        with explained(self.failure):
            try:
                path = huggingface_hub.hf_hub_download(
                    filename=PRESET_FILE, revision=revision, **self.where
                )
            except RemoteEntryNotFoundError:
                return None
            except LocalEntryNotFoundError:
                # Offline: the cache remembers that a repository lacks a file.
                cached = huggingface_hub.try_to_load_from_cache(
                    self.where["repo_id"],
                    PRESET_FILE,
                    cache_dir=self.where["cache_dir"],
                    revision=revision,
                )
                if cached is huggingface_hub._CACHED_NO_EXIST:
                    return None
                raise
            return Path(path).parent

    def fetch(self, revision, patterns):
        import huggingface_hub

        with explained(self.failure):
            return Path(
                huggingface_hub.snapshot_download(
                    revision=revision, allow_patterns=patterns, **self.where
                )
            )

    def fetch_plain(self, revision):
        directory = self.fetch(revision, ["*.json", "*.weights.h5", "assets/*"])
        verify_plain(directory)
        return directory

    def fetch_others(self, revision, weights):
        """A preset of keras_hub, or a published model in the format of another library.

        The Hub says the sizes and checksums of its files. Where it cannot be reached, the names of
        the cache say the checksums of what a former download left.
        """
        directory = self.fetch(revision, list(DESCRIBING))
        listing, unreachable = None, None
        try:
            listing = self.listing(directory.name)
            files = set(listing)
        except ValueError as error:
            unreachable = error
            files = {path.name for path in directory.glob("*") if path.is_file()}
        describing = [name for name in DESCRIBING if name in files]
        self.complete(directory, describing, listing)
        format = published_format(directory)
        if format is None:
            return FoundPreset(self.fetch_plain(revision), None, None)
        if weights:
            try:
                names = weight_names(directory, format, files)
            except ValueError as error:
                raise unreachable or error from None
            self.complete(directory, names, listing)
        return FoundPreset(directory, None, None, format)

    def complete(self, directory, names, listing):
        """Brings files into a snapshot; raises a `ValueError` if they stay unlike the Hub's."""
        if not all((directory / name).is_file() for name in names):
            self.fetch(directory.name, names)
        if wrong := unlike_the_hub(directory, names, listing):
            self.fetch_again(directory, list(wrong))
            wrong = unlike_the_hub(directory, names, listing)
        for complaint in wrong.values():
            raise ValueError(complaint)

    def listing(self, commit):
        """Dict from the name of each file of a commit to its facts on the Hub."""
        import huggingface_hub

        with explained(self.failure):
            entries = huggingface_hub.list_repo_tree(
                self.where["repo_id"], revision=commit, token=self.where["token"]
            )
            return {entry.path: entry for entry in entries if hasattr(entry, "size")}

    def fetch_again(self, directory, names):
        import huggingface_hub

        with explained(
            f"The cached files {names} of '{SCHEME}{self.where['repo_id']}' in '{directory}' are "
            "damaged and could not be downloaded again."
        ):
            for name in names:
                huggingface_hub.hf_hub_download(
                    filename=name, revision=directory.name, force_download=True, **self.where
                )
