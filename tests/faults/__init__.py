"""The fault suite: clients, services and PostgreSQL under load while all but the clients are killed; then an independent check."""
