"""The rules of what is known: pure, without Flask and without MongoDB."""
