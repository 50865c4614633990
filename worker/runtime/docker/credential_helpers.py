"""Programs that keep credentials for registries (`docker-credential-NAME`), which a Docker config file names."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess

from docker.auth import TOKEN_USERNAME

HELPER_ANSWERS_WITHIN = 60.0
"""Seconds after which a helper is ended: it may ask somebody who is not there."""


class HelperError(Exception):
    """A helper gives no answer; the text says why, as in "the helper, which …"."""


def ask_helper(helper: str, server: str) -> dict[str, str] | None:
    """Return a helper's credentials for `server`, as the engine takes them; None where it has none. Raises
    HelperError."""
    code, output, errors = _run(f"docker-credential-{helper}", server)
    if code:
        said = (output.strip() or errors.strip()).decode("utf-8", "replace")
        if "credentials not found in native keychain" in said:
            return None
        raise HelperError(f"fails: {said or f'exit code {code}'}")
    try:
        answer = json.loads(output)
        name, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError):
        raise HelperError("fails: its answer is not a user name and a secret") from None
    if not (name or secret):
        return None
    if name == TOKEN_USERNAME:
        return {"ServerAddress": server, "IdentityToken": secret}
    return {"ServerAddress": server, "Username": name, "Password": secret}


def _run(program: str, server: str) -> tuple[int, bytes, bytes]:
    """Return a helper's exit code and what it printed. Raises HelperError."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(  # noqa: S603 - the file of the worker's user names it
            [program, "get"], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except FileNotFoundError:
        raise HelperError("is not installed on the worker") from None
    except (OSError, ValueError) as error:
        raise HelperError(f"fails: {error}") from None
    with process:
        try:
            output, errors = process.communicate(server.encode(), timeout=HELPER_ANSWERS_WITHIN)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise HelperError(f"does not answer within {HELPER_ANSWERS_WITHIN:g} s") from None
    return process.returncode, output, errors
