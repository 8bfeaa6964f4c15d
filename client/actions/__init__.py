"""The actions of an owner: one module for each message of the protocol."""
