"""The parts of any daemon of ours."""
