"""One module per service of the embedded backend: its command, its ports, its readiness."""
