"""The version of the service, as answers and decisions carry it."""

VERSION = "0.1.0"
