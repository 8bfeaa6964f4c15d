"""gRPC service of the coordinator: a thin servicer over plain handlers."""
