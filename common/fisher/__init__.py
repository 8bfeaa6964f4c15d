"""The diagonal Fisher information of a classifier, for a set of samples or per class."""
