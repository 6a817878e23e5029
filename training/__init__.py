"""What happens offline: logs in, bundles and reports out."""
