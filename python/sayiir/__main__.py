"""`python -m sayiir`: the command line for those who would rather name the interpreter.

Promises to be the same program as the `sayiir` script. Knows nothing but its name.
"""

from sayiir.cli import main

if __name__ == "__main__":
    main(prog_name="sayiir")
