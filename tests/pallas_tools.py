"""What the tests of JAX's GPU kernels share."""


def forgetting(*programs):
    """Yields a function that forgets what jitted programs were traced for, and forgets at the end.

    Programs of kernels of other tiles, or in the interpreter, are not taken for others.
    """

    def forget():
        for program in programs:
            program.clear_cache()

    forget()
    yield forget
    forget()
