"""What runs in the warm interpreter: the standard library and these files only, for nothing else is in its view.

warm.py         starts, shuts itself in, forks for each program
namespaces.py   users, mounts, processes, network: a view of the files that holds the interpreter alone
landlock.py     what may be read and written, once more, by another part of the kernel
seccomp.py      which system calls there are
kernel.py       the calls themselves
program.py      a fork that becomes the program: limits, a scratch folder, no rights
check.py        a fork that runs the test, and calls the program over a channel
plain.py        the data that may cross that channel
watch.py        waits, with a clock, and says how it ended
"""
