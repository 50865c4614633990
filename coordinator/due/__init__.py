"""Work that time brings, not messages: shared among coordinators, stored, and taken up by whoever is there."""
