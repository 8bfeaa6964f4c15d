"""What both ends of the agents' service must agree on, beyond the schema."""

PROTOCOL = 1
"""Version of the protocol; an agent that speaks another is refused."""
