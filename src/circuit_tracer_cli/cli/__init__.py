"""The command line: flags, output and exit codes. No mathematics here; each command imports the heavy parts when it runs."""
