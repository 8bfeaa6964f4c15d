"""gRPC ports of the coordinator: bounds on connections and calls."""
