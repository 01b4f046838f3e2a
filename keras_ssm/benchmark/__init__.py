"""What `keras-ssm benchmark` runs: every layer against the published formulations.

`run` starts one process a backend (`worker`), which alternates our layers with their yardsticks
and with Keras' own layers; `report` makes the table and the picture.
"""
