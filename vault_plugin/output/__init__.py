"""Where results go: formats, files, CI systems."""
