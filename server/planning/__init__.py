"""Planning: from a request and the graph to tasks of owners. No I/O."""
