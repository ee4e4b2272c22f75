"""The `splitpoint` command, its reports and the link emulator."""
