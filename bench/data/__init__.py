"""The images: datasets whose content is verified."""
