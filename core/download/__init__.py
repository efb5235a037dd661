"""Files of other owners: fetched, verified, kept."""
