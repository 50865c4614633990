"""Decodes a user's document strictly: `decode_job`."""

from shared.model.decoding.model_builder import ContentType, decode_job

__all__ = ["ContentType", "decode_job"]
