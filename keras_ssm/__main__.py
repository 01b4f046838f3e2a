"""`python -m keras_ssm` is `keras-ssm`."""

from keras_ssm_command import main

if __name__ == "__main__":
    main()
