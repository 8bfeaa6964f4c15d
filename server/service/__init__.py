"""The coordinator as a gRPC service: a thin servicer over plain handlers."""
