from typing import NamedTuple


class Blueprint(NamedTuple):
    """A model as a checkpoint describes it, before it is built.

    Fields:
        mixer: `keras_ssm.layers.SSMLayer`. The layer to stack.
        backbone: dict. Arguments of `SSMBackbone`.
        task: class of the task model.
        task_arguments: dict. Its arguments.
        assignments: list of `Assignment`.
        remarks: list of str. What a person should know of this conversion.
    """

    mixer: object
    backbone: dict
    task: type
    task_arguments: dict
    assignments: list
    remarks: list
