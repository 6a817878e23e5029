"""What the world talks to: the gRPC edge, the use cases, and the store."""
