"""Passage indexes for agents: `gte mcp`, and what it shares with `gte serve`."""
