"""Transports to owners: messages, checked answers, routes and intervals."""
