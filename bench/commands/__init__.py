"""The commands, by what they are for; `bench.cli` puts them together."""
