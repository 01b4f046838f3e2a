import dataclasses


@dataclasses.dataclass(frozen=True)
class SpacePublication:
    """What `publish_space` did, or would do.

    Args:
        repo_id: str. The Space, `"organisation/name"`.
        revision: str. The branch.
        commit: str or `None`. The commit that holds the page; `None` for a dry run.
        uploaded: tuple of str. Files that were uploaded; empty where nothing had changed.
        deleted: tuple of str. Files of a former version that are gone.
    """

    repo_id: str
    revision: str
    commit: str | None
    uploaded: tuple
    deleted: tuple

    def describe(self) -> list[str]:
        """Returns what happened, in lines for people; the package's own files are counted."""
        where = f"the Space {self.repo_id} ({self.revision})"
        if self.commit is None:
            lines = [f"would publish to {where}:"]
        elif self.uploaded or self.deleted:
            lines = [f"published to {where}, commit {self.commit}:"]
        else:
            lines = [f"{where} holds this page already, commit {self.commit}"]
        shown = [name for name in self.uploaded if not _of_package(name)]
        lines += [f"  + {name}" for name in shown]
        if len(shown) < len(self.uploaded):
            lines.append(f"  + {len(self.uploaded) - len(shown)} files of the package")
        lines += [f"  - {name}" for name in self.deleted]
        if self.commit is not None:
            lines.append("downloaded again and compared: all files are equal")
        return lines


def _of_package(name):
    return name.startswith("keras_ssm/") and "/zoo/" not in name
