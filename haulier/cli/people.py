"""`haulier user` and `haulier token`: who may do what."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Final

import click

from haulier.cli.calls import ask, asks_server
from haulier.cli.forms import Form, prints, tell
from haulier.cli.lists import Listing, change_command, lists, show_list
from haulier.cli.output import plain_text, say, say_on_stderr, show_json_value
from haulier.cli.times import relative, wall_time
from haulier.cli.tree import short
from haulier.client import Client
from haulier.results import Token, User


@click.group()
def user() -> None:
    """Users, for admins."""


@click.group("token")
def token_command() -> None:
    """Tokens by which programs sign in: haulier --key TOKEN."""


def _new_password(from_stdin: bool) -> str:
    """Read a password: it never stands on the command line, which others can see."""
    if from_stdin or not sys.stdin.isatty():
        return sys.stdin.readline().removesuffix("\n")
    prompted: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return prompted


password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input."
)


@user.command("add")
@click.argument("username")
@click.option("--name", default="", help="The full name.")
@click.option("--role", "roles", multiple=True, help="A role to give, such as viewer or admin.")
@password_option
@prints()
@asks_server
def add_user(
    client: Client,
    form: Form,
    username: str,
    name: str,
    roles: tuple[str, ...],
    password_stdin: bool,
) -> int:
    """Add a user, whose password is asked for."""
    password = _new_password(password_stdin)

    async def added(client: Client) -> User:
        made = await client.add_user(username, password, name)
        for role in roles:
            await client.grant_role(username, role)
        return made

    made = ask(client, added)
    text = f"added user {username}" + (f" as {', '.join(roles)}" if roles else "")
    tell(form, text, username=username, id=made.id, roles=list(roles))
    return 0


def _user_row(each: User, at: datetime) -> tuple[str, ...]:
    state = "disabled" if each.disabled else "may sign in"
    return each.username, each.name, state, ", ".join(each.roles), relative(each.created_at, at)


_USERS: Final = Listing(
    path="/users",
    kind=User,
    noun="user",
    headings=("USERNAME", "NAME", "STATE", "ROLES", "CREATED"),
    row=_user_row,
    name=lambda each: each.username,
    empty="no users",
    flexible=("NAME", "ROLES", "USERNAME"),
    optional=("NAME", "CREATED"),
)


@user.command("list")
@lists(_USERS)
@asks_server
def show_users(client: Client, form: Form) -> int:
    """List the users."""
    return show_list(client, form, _USERS)


@user.command("passwd")
@click.argument("username", default="me")
@password_option
@prints()
@asks_server
def passwd(client: Client, form: Form, username: str, password_stdin: bool) -> int:
    """Change a user's password, your own by default."""
    password = _new_password(password_stdin)

    async def changed(client: Client) -> None:
        if username == "me":
            await client.change_password(password)
        else:
            await client.change_user(username, password=password)

    whose = "your password" if username == "me" else f"the password of {username}"
    ask(client, changed)
    tell(form, f"changed {whose}", username=username, status="OK")
    return 0


@user.command("disable")
@click.argument("username")
@prints()
@asks_server
def disable(client: Client, form: Form, username: str) -> int:
    """Let a user sign in no more, from the next request on."""
    return _set_disabled(client, form, username, True)


@user.command("enable")
@click.argument("username")
@prints()
@asks_server
def enable(client: Client, form: Form, username: str) -> int:
    """Let a disabled user sign in again."""
    return _set_disabled(client, form, username, False)


def _set_disabled(client: Client, form: Form, username: str, disabled: bool) -> int:
    ask(client, lambda client: client.change_user(username, disabled=disabled))
    done = "disabled" if disabled else "enabled"
    tell(form, f"{done} user {username}", username=username, status=done)
    return 0


def _role_command(name: str, help_text: str, text: str, done: str) -> None:
    """Add the command that gives a role, or the one that takes it; `text` and `done` tell that it did."""

    @user.command(name, help=help_text)
    @click.argument("username")
    @click.argument("role")
    @prints()
    @asks_server
    def changed(client: Client, form: Form, username: str, role: str) -> int:
        fields = {"username": username, "role": role}
        ask(client, lambda client: getattr(client, f"{name}_role")(username, role))
        tell(form, text.format(**fields), **fields, status=done)
        return 0


_role_command("grant", "Give a user a role.", "gave {username} the role {role}", "granted")
_role_command(
    "revoke", "Take a role from a user.", "took the role {role} from {username}", "revoked"
)


@user.command("rm")
@click.argument("username")
@prints()
@asks_server
def remove_user(client: Client, form: Form, username: str) -> int:
    """Delete a user and their tokens; their jobs stay."""
    ask(client, lambda client: client.delete_user(username))
    tell(form, f"deleted user {username}", username=username, status="deleted")
    return 0


def _token_row(token: Token, at: datetime) -> tuple[str, ...]:
    return (
        short(token.id),
        token.name,
        token.username,
        token.role,
        relative(token.expires_at, at) or "never",
        relative(token.last_used_at, at) or "never",
    )


_TOKENS: Final = Listing(
    path="/tokens",
    kind=Token,
    noun="token",
    headings=("ID", "NAME", "USER", "ROLE", "EXPIRES", "USED"),
    row=_token_row,
    name=lambda token: token.id,
    empty="no tokens",
    flexible=("NAME", "USER"),
    optional=("USER", "EXPIRES", "ROLE", "USED"),
)


@token_command.command("add")
@click.argument("name")
@click.option("--role", default="", help="At most your own role, which is the default.")
@click.option("--expires", default="", help="A time, or a duration such as 720h.")
@prints()
@asks_server
def add_token(client: Client, form: Form, name: str, role: str, expires: str) -> int:
    """Make a token and print it: it is shown only now. With -q nothing else is said."""
    made = ask(client, lambda client: client.add_token(name, role=role, expires=expires))
    if form.as_json:
        show_json_value({"id": made.id, "name": made.name, "role": made.role, "token": made.token})
        return 0
    say(plain_text(made.token))
    if form.quiet:
        return 0
    until = (
        f", which expires {relative(made.expires_at, wall_time(client))}" if made.expires_at else ""
    )
    say_on_stderr(f"made token {made.id}{until}; it is not shown again")
    return 0


@token_command.command("list")
@lists(_TOKENS)
@asks_server
def show_tokens(client: Client, form: Form) -> int:
    """List your tokens, or everybody's for an admin."""
    return show_list(client, form, _TOKENS)


token_command.add_command(
    change_command(
        _TOKENS,
        "rm",
        "Revoke a token: it is refused from the next request on.",
        Client.revoke_token,
        "revoked",
        "revoked token {name} ({short})",
    )
)
