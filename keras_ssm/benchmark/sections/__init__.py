"""One module for each section of the benchmark: `rows(...)` yields its measurements."""
