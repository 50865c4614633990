"""Firewall rules that engines make and leave behind when they stop."""

from __future__ import annotations

import re
import subprocess

from devservices import packages

FAMILIES = ("iptables", "ip6tables")


def policy() -> dict[str, str]:
    """What each family does with forwarded packets that no rule speaks of; Docker changes it."""
    found = {}
    for family in FAMILIES:
        if match := re.search(r"^:FORWARD (\w+)", _saved(family, "-t", "filter"), re.MULTILINE):
            found[family] = match[1]
    return found


def set_policy(policies: dict[str, str]) -> None:
    """Put back what `policy` told."""
    for family, name in policies.items():
        if program := packages.find(family):
            subprocess.run([program, "-P", "FORWARD", name], capture_output=True, check=False)


def forget(*words: str) -> None:
    """Remove every chain and rule that has one of the words in it."""
    for family in FAMILIES:
        restore = packages.find(f"{family}-restore")
        rules = _saved(family).splitlines()
        kept = [rule for rule in rules if not any(word in rule for word in words)]
        if restore and kept != rules:
            text = "\n".join(kept) + "\n"
            subprocess.run([restore], input=text, capture_output=True, text=True, check=False)


def forget_table(name: str) -> None:
    """Remove a table of nftables' own, which the iptables commands do not see."""
    if nft := packages.find("nft"):
        command = [nft, "delete", "table", "inet", name]
        subprocess.run(command, capture_output=True, check=False)


def _saved(family: str, *arguments: str) -> str:
    save = packages.find(f"{family}-save")
    if save is None:
        return ""
    return subprocess.run([save, *arguments], capture_output=True, text=True, check=False).stdout
