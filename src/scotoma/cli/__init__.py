"""The command line: arguments in, exit codes out; no method lives here."""
