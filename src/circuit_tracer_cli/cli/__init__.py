"""The command line: flags, output and exit codes. It knows no mathematics, and imports the heavy parts inside each command."""
