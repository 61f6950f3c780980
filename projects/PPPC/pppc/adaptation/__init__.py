"""One command from images to an adapted model: its plan, and what came of it."""
