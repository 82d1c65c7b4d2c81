"""One file a verb: its docstring's first line is its help, the parameters of its function `run` are its flags."""
