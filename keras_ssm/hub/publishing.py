"""From a preset's directory to a repository of the Hugging Face Hub, and back for comparison."""

import tempfile
from pathlib import Path

from keras_ssm import presets
from keras_ssm.hub import model_card, preset_check
from keras_ssm.hub.publication import Publication
from keras_ssm.hub.repository import DEFAULT_BRANCH, Repository
from keras_ssm.models.saving import sample_check
from keras_ssm.types import PathLike
from keras_ssm.version import __version__


def publish(
    preset_dir: PathLike,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    overwrite_card: bool = False,
) -> Publication:
    """Publishes a preset on the Hugging Face Hub.

    The preset is loaded on the current backend, and its outputs compared with those recorded
    when it was saved. Its files and a model card are uploaded in one commit. It removes files of a
    former version of the preset, and other files of the repository stay. What was published is then
    downloaded into a fresh cache, loaded and compared. If the repository holds this preset already,
    nothing is changed.

    A `README.md` in the directory that a person wrote or edited is published as it is; otherwise
    the card is generated. A card that was edited in the repository is kept.

    Args:
        preset_dir: str or `Path`. A directory that `save_to_preset` wrote, or the name of a
            preset that is installed.
        repo_id: str. `"organisation/name"`; the repository is made if there is none.
        private: bool. Whether the repository must be private. Defaults to `False`.
        revision: str or `None`. Branch, made if there is none. Defaults to `"main"`.
        token: str or `None`. A token with write access. Defaults to that of `HF_TOKEN` or of
            `hf auth login`.
        dry_run: bool. Check the preset and tell what would be uploaded to an empty repository,
            without a request to the Hub. Defaults to `False`.
        overwrite: bool. Whether another model that stands in the repository may be replaced.
            Defaults to `False`.
        overwrite_card: bool. Whether a card that was edited in the repository may be replaced.
            Defaults to `False`.

    Returns:
        A `Publication`: commit, files, card.

    Raises:
        ValueError: if the preset is not valid or computes something else than it did, the
            repository holds another model or is public where a private one is asked for, the
            token does not allow it, the Hub cannot be reached, or what comes back differs.

    Example:
        ```python
        done = keras_ssm.hub.publish("s4d_digits", "me/s4d_digits", dry_run=True)
        print("\\n".join(done.describe()))
        ```
    """
    directory = _local(preset_dir)
    check_repo_id(repo_id)
    outputs, error = preset_check.check(directory)
    document = presets.read(directory)
    files = {name: directory / name for name in [*document["files"], presets.PRESET_FILE]}
    text, kind = _card(directory, repo_id)
    branch = revision or DEFAULT_BRANCH
    if dry_run:
        names = tuple(sorted([*files, presets.CARD_FILE]))
        return Publication(repo_id, branch, None, names, (), kind, error)

    failure = f"Preset '{directory}' was not published to '{repo_id}'."
    with presets.explained(failure):
        repository = Repository(repo_id, branch, private, token)
        if not overwrite:
            _check_content(repository, document)
        if _edited(repository, text) and not overwrite_card:
            kind = "kept"
        else:
            files[presets.CARD_FILE] = text.encode()
        added = {n: c for n, c in files.items() if not repository.holds(n, c)}
        deleted = sorted(
            name for name in repository.files if presets.is_read_on_load(name) and name not in files
        )
        commit = repository.head
        if added or deleted:
            message = f"Publish {document.get('name', directory.name)} (keras_ssm {__version__})"
            commit = repository.commit(added, deleted, message)
    _compare(repo_id, commit, token, document, outputs)
    return Publication(repo_id, branch, commit, tuple(sorted(added)), tuple(deleted), kind, error)


def _local(preset_dir):
    if str(preset_dir).startswith(presets.SCHEME):
        raise ValueError(
            "`preset_dir` must be a directory or the name of an installed preset. "
            f"Received: preset_dir={str(preset_dir)!r}"
        )
    directory = presets.resolve(preset_dir)
    presets.verify(directory)  # a preset of keras_hub, without preset.json, too
    return directory


def check_repo_id(repo_id):
    """Raises a `ValueError` unless a name can be that of a repository."""
    from huggingface_hub.utils import validate_repo_id

    message = "`repo_id` must be 'organisation/name', of letters, digits, '-', '_' and '.'."
    if not isinstance(repo_id, str) or repo_id.count("/") != 1:
        raise ValueError(f"{message} Received: repo_id={repo_id!r}")
    try:
        validate_repo_id(repo_id)
    except ValueError as error:
        raise ValueError(f"{message} Received: repo_id={repo_id!r} ({error})") from None


def _card(directory, repo_id):
    """The card to publish, and whether it is generated or the person's own."""
    path = directory / presets.CARD_FILE
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        if not model_card.is_generated(text):
            return text, "yours"
    return model_card.card(directory, repo_id), "generated"


def _edited(repository, text):
    """Whether the card in the repository is somebody's work that this one would replace."""
    card = repository.read(presets.CARD_FILE)
    if card is None or card == text.encode():
        return False
    return not model_card.is_generated(card.decode("utf-8", errors="replace"))


def _check_content(repository, document):
    """Refuses to replace another model."""
    other = None
    if presets.PRESET_FILE in repository.files:
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / presets.PRESET_FILE).write_bytes(repository.read(presets.PRESET_FILE))
            other = presets.read(scratch)
    keys = ("name",) if other and "name" in other and "name" in document else ("task", "system")
    if repository.holds_another_model() or (
        other is not None and any(other.get(key) != document.get(key) for key in keys)
    ):
        identity = {key: (other or {}).get(key) for key in keys}
        raise ValueError(
            f"Repository '{repository.repo_id}' holds another model; `overwrite` replaces it. "
            f"Received: {identity if other else sorted(repository.files)}"
        )


def _compare(repo_id, commit, token, document, outputs):
    """Downloads the published files into a fresh cache, and compares them with the preset."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = presets.download(repo_id, commit, token, cache_dir=scratch)
        equal = presets.read(directory) == document
        error = sample_check.difference(preset_check.run(directory), outputs)
    if not equal or error > 1e-6:
        raise ValueError(
            f"What '{repo_id}' returns at commit {commit} must equal what was published. "
            f"Received: preset.json {'equal' if equal else 'different'}, predictions that differ "
            f"by {error:.1e}"
        )
