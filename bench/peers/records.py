"""What every peer does with a record: the work of the script that the function replaces."""

import json
from datetime import date, datetime, timezone
from hashlib import sha256

COLUMNS = (
    "message_id",
    "user_id",
    "device_type",
    "masked_ip",
    "masked_device_id",
    "locale",
    "app_version",
    "create_date",
)

INSERT = f"insert into user_logins ({', '.join(COLUMNS)}) values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict (message_id) do nothing"


def to_row(record: dict) -> tuple:
    """A row of user_logins, in the order of COLUMNS. Raises KeyError if a required field is absent."""
    body = json.loads(record["body"])
    return (
        record["messageId"],
        body["user_id"],
        body.get("device_type"),
        pseudonym(body["ip"]),
        pseudonym(body["device_id"]),
        body.get("locale"),
        version_number(body.get("app_version")),
        sent_date(record["attributes"]["SentTimestamp"]),
    )


def pseudonym(value: str) -> str:
    return sha256(value.encode()).hexdigest()


def version_number(version: str | None) -> int | None:
    """2003000 for "2.3.0"."""
    if version is None:
        return None
    major, minor, patch = (version.split(".") + ["0", "0"])[:3]
    return int(major) * 1_000_000 + int(minor) * 1_000 + int(patch)


def sent_date(milliseconds: str) -> date:
    return datetime.fromtimestamp(int(milliseconds) / 1000, timezone.utc).date()
