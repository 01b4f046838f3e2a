import dataclasses


@dataclasses.dataclass(frozen=True)
class Publication:
    """What `publish` did, or would do.

    Args:
        repo_id: str. The repository, `"organisation/name"`.
        revision: str. The branch.
        commit: str or `None`. The commit that holds the preset; `None` for a dry run.
        uploaded: tuple of str. Files that were uploaded; empty where nothing had changed.
        deleted: tuple of str. Files of a former preset that are gone.
        card: str. Which model card stands there: `"generated"`, `"yours"` (the `README.md` of
            the preset), or `"kept"` (edited in the repository, and left as it is).
        error: float. Largest difference of the outputs from the recorded ones, relative to the
            largest of these.
    """

    repo_id: str
    revision: str
    commit: str | None
    uploaded: tuple
    deleted: tuple
    card: str
    error: float

    def describe(self):
        """Returns what happened, in lines for people."""
        lines = [f"outputs equal the recorded ones (largest difference {self.error:.1e})"]
        where = f"hf://{self.repo_id} ({self.revision})"
        if self.commit is None:
            lines += [f"would publish to {where}, card {self.card}:"]
        elif self.uploaded or self.deleted:
            lines += [f"published to {where}, card {self.card}, commit {self.commit}:"]
        else:
            lines += [f"{where} holds this preset already, commit {self.commit}"]
        lines += [f"  + {name}" for name in self.uploaded]
        lines += [f"  - {name}" for name in self.deleted]
        if self.commit is not None:
            lines += ["downloaded again and compared: files and predictions are equal"]
        return lines
