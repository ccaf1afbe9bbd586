"""What the plugin `starts` imports from the file beside it."""

HALF = 0.5
