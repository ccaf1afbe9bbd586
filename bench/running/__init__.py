"""From a wish to records."""
