"""What other clients make of an exported directory."""
