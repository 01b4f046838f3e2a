"""What the loopback Hub keeps: commits over dicts of files."""

import dataclasses
import hashlib
import json


@dataclasses.dataclass
class Repository:
    """Commits by their id, and what the names of branches and tags point to."""

    private: bool = False
    commits: dict = dataclasses.field(default_factory=dict)
    branches: dict = dataclasses.field(default_factory=dict)
    tags: dict = dataclasses.field(default_factory=dict)

    def commit(self, files, branch="main"):
        """Puts a dict of name to bytes on a branch; returns the commit's id."""
        listing = [(name, digest(data)) for name, data in sorted(files.items())]
        oid = hashlib.sha1(json.dumps([listing, len(self.commits)]).encode()).hexdigest()
        self.commits[oid] = dict(files)
        self.branches[branch] = oid
        return oid

    def find(self, revision):
        """The commit's id of a branch, a tag or a commit, or `None`."""
        known = {**self.tags, **self.branches, **{oid: oid for oid in self.commits}}
        return known.get(revision)

    def files(self, revision="main"):
        return self.commits[self.find(revision)]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def blob_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
