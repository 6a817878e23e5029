"""Everything that is kept: decisions, outcomes, customers, identities, contact history."""
