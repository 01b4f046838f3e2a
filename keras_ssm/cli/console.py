from rich.console import Console

console = Console()
if not console.is_terminal:
    console = Console(width=200)  # a pipe or a file: names are not cut to 80 columns

BACKENDS = ["jax", "tensorflow", "torch"]
