"""`disinherit request`: submission, approval, control and reports of requests."""
