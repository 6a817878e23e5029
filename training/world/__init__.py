"""A simulated retailer with known truth: the measuring stick of what the service learns."""
