"""A campaign over real agents and SuperNodes on loopback."""
