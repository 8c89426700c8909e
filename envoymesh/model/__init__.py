"""The inventory as a typed, frozen, cross-checked mesh. No I/O but reading the inventory file."""
