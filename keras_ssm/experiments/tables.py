"""CSV files of rows, whose numbers are numbers again when they are read."""

import csv
from pathlib import Path

from keras_ssm.atomic_file import writing_file


def write_table(path: Path, rows: list[dict], columns: tuple[str, ...]) -> None:
    """Writes a CSV file whole or not at all."""
    with writing_file(path) as scratch, open(scratch, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def add_rows(path: Path, rows: list[dict], columns: tuple, key: tuple[str, ...]) -> None:
    """Writes rows into a CSV file, in place of its rows with the same keys."""
    former = read_table(path) if path.is_file() else []
    replaced = {tuple(row[name] for name in key) for row in rows}
    others = [row for row in former if tuple(row[name] for name in key) not in replaced]
    write_table(path, [*others, *rows], columns)


def read_table(path: Path) -> list[dict]:
    """Reads a CSV file: whole numbers as int, others as float, the rest as str."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
