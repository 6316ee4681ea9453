"""Teachers: asked in each step, their vectors computed before, several of them as one."""
