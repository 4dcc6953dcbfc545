"""Login messages, and the rows that they must become: docs/CONTRACT.md once more, not in the function's words."""

import hashlib
import hmac
import ipaddress
import json
import random
import uuid

# Of these, some are absent or null in some messages.
DEVICE_TYPES = ["android", "ios", None]
LOCALES = ["en-GB", "zh-Hant-TW", "RU", None]
VERSIONS = {"2.3.0": 2003000, "6.02": 6002000, "0.96": 96000, "1": 1000000, "12.10.7": 12010007, None: None}


def good(count, seed=0):
    """So many good messages, no two with the same person, address or device."""
    chance = random.Random(seed)
    numbers = chance.sample(range(10**8), count)
    return [login(chance, number) for number in numbers]


def login(chance, number):
    message = {
        "user_id": str(uuid.UUID(int=chance.getrandbits(128))),
        "app_version": chance.choice(list(VERSIONS)),
        "device_type": chance.choice(DEVICE_TYPES),
        "ip": address(chance, number),
        "locale": chance.choice(LOCALES),
        "device_id": f"{number // 10**6 + 100}-{number // 10**4 % 100:02}-{number % 10**4:04}",
    }
    return {field: value for field, value in message.items() if value is not None or chance.random() < 0.5}


def address(chance, number):
    """An address that is the number's own, in one of its spellings."""
    v4 = ipaddress.IPv4Address((10 << 24) + number % (1 << 24))
    v6 = ipaddress.IPv6Address((0x20010DB8 << 96) + number)
    return chance.choice([str(v4), f"::ffff:{v4}", str(v6), v6.exploded.upper()])


def body(message):
    return json.dumps(message)


def row(message, key, sent_date):
    """What the table must hold of a message: all columns but the id."""
    return (
        message["user_id"],
        message.get("device_type"),
        pseudonym(key, "ip", canonical(message["ip"])),
        pseudonym(key, "device_id", message["device_id"]),
        message.get("locale"),
        VERSIONS[message.get("app_version")],
        sent_date,
    )


def canonical(ip):
    parsed = ipaddress.ip_address(ip)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def pseudonym(key, domain, value):
    """Keyed with the secret's own text, whose id is k1."""
    digest = hmac.new(key.encode(), f"{domain}\0{value}".encode(), hashlib.sha256)
    return f"k1:{digest.hexdigest()}"


def clear_values(messages):
    """Every spelling of what must be found nowhere."""
    return {text for message in messages for text in (message["ip"], canonical(message["ip"]), message["device_id"])}
