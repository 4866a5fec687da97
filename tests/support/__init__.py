"""What the tests share: real servers, the command as a process, and looks for secrets."""
