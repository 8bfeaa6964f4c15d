"""Planning of requests: from a request and the graph to tasks of owners. No I/O."""
