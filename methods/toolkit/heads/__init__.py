"""The classifiers that methods put on labelled or propagated instances."""
