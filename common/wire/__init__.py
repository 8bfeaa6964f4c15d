"""The wire between coordinator and owners: messages, packets and their encodings."""
