from typing import NamedTuple

from rich.table import Table


class Report(NamedTuple):
    """What a conversion did.

    Fields:
        source: str. The checkpoint.
        format: str. Its format.
        container: str. The kind of file.
        settings: dict of name to `(value, origin, in_file)`. What the model is built with, and
            where it came from: `"tensors"`, the hyper-parameters of the `"file"`, those of a
            `"config"`, `"given"`, `"default"` (the published one), or the `"format"` itself.
        weights: list of `(sources, source shapes, target, target shape, transformation)`.
        dropped: dict of tensor names to why a model does not need them.
        others: list of str. Other contents of the file, which are left aside.
        remarks: list of str.
    """

    source: str
    format: str
    container: str
    settings: dict
    weights: list
    dropped: dict
    others: list
    remarks: list

    def print(self, console):
        """Prints the report to a `rich.console.Console`."""
        console.print(f"[bold]{self.source}[/bold]: {self.format}, a {self.container} file")
        table = Table("setting", "value", "from", "", title="Settings", title_justify="left")
        for name, (value, origin, in_file) in sorted(self.settings.items()):
            table.add_row(name, str(value), origin, "" if in_file else "not in the file")
        console.print(table)
        table = Table("tensor", "shape", "weight", "shape", "transformation", title="Weights")
        table.title_justify = "left"
        for sources, shapes, target, shape, note in self.weights:
            names = "\n".join(sources) or "-"
            shapes = "\n".join(map(str, shapes))
            table.add_row(names, shapes, target, str(shape), note)
        console.print(table)
        for name, reason in self.dropped.items():
            console.print(f"dropped {name}: {reason}", highlight=False)
        if self.others:
            console.print(f"left aside: {', '.join(self.others)}", highlight=False)
        for remark in self.remarks:
            console.print(f"note: {remark}", highlight=False)
        unsaid = [name for name, row in sorted(self.settings.items()) if not row[2]]
        if unsaid:
            console.print(
                f"The file could not say: {', '.join(unsaid)}. Set what is wrong with "
                "--set NAME=VALUE.",
                highlight=False,
            )
