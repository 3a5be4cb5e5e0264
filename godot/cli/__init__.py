"""The command `godot`: options are declared in `commands`, and what a command does stands in the module beside it."""
