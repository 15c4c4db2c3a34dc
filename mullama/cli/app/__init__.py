"""The command line as a program: the entry point, the table of commands, exit codes and the environment."""
