"""What we believe and how we choose: pure functions of values, without clock, environment, socket or database."""
