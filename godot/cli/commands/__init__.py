"""The commands, as they are declared: options and texts. What they do is in `godot.cli`."""
