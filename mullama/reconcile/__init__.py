"""Make it so: observe, plan, execute."""
