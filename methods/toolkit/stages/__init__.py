"""Label-free work that several methods share, computed once per key."""
