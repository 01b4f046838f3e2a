"""What `keras-ssm benchmark` runs: every layer against the published formulations.

`run` starts one process for each section and backend (`worker`). Of the `sections`, `layers` times
every layer and evaluation in turn with its yardsticks, `memory` counts what they take, `stream`
times single steps, `fit` trains classifiers, and `long` reads a million steps. `arithmetic` counts
what a row computes, `targets` compares with what the project promises, and `report` makes the
tables and the picture.
"""
