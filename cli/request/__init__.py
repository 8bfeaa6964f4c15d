"""`disinherit request`: a command for each call of the coordinator about requests."""
