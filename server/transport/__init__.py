"""Transports to owners: messages, validated answers, routes and intervals."""
