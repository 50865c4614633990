"""The control plane: decides what runs next."""
