"""What is there for speed alone; each has a plain twin in the tests."""
