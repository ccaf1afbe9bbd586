"""The methods: semi-supervised clustering algorithms as scikit-learn estimators."""
