"""Where `keras-ssm` starts.

Outside the package, whose import waits for Keras and its backend: a process that has this module
is the command, and `keras_ssm` then imports no more than what is asked for.
"""


def main():
    from keras_ssm.cli import main

    main(prog_name="keras-ssm")
