"""From vectors to the nearest rows: exact top-k, `Index` and its file."""
