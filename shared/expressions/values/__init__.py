"""The values of the language: what there is besides JSON, and how each is read, written and compared."""

from shared.expressions.values.kinds import type_name

__all__ = ["type_name"]
