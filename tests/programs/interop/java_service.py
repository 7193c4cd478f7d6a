#!/usr/bin/env python3
"""What the published Spring Boot service does with the two hashes, line for line, in another language.

    java_service.py --redis HOST:PORT --api URL --appid APPID token USER
    java_service.py --redis HOST:PORT --api URL --appid APPID login USER < REPLY

`token` gives out the user's access token, renewed where it must be, as
`{"token": …, "renewed": …}`, or `{"login": true}`. `login` stores the reply of
sns/oauth2/access_token. Only the standard library is used.
"""

import argparse
import json
import socket
import sys
import time
import urllib.parse
import urllib.request

ACCESS_HASH = "user.wxUserAccessToken"
REFRESH_HASH = "user.wxUserRefreshToken"
MARGIN_SECS = 15 * 60


class Redis:
    """As much of RESP2 as HGET and HSET need."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.stream = socket.create_connection((host, int(port)), timeout=10).makefile("rwb")

    def call(self, *words):
        words = [word.encode() for word in words]
        self.stream.write(b"*%d\r\n" % len(words))
        for word in words:
            self.stream.write(b"$%d\r\n%s\r\n" % (len(word), word))
        self.stream.flush()
        return self.answer()

    def answer(self):
        line = self.stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis hung up")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            body = self.stream.read(int(rest) + 2)
            return body[:-2].decode()
        raise ValueError(f"Redis says {line!r}")


def java_split(value):
    """`value.split("#")` of Java: empty strings at the end are dropped."""
    parts = value.split("#")
    while len(parts) > 1 and parts[-1] == "":
        parts.pop()
    return parts


def now_ms():
    return int(time.time() * 1000)


def parse_long(text):
    """`Long.parseLong`: an optional sign and ASCII digits; anything else throws."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"For input string: {text!r}")
    return int(text)


class Service:
    def __init__(self, redis, api, appid):
        self.redis, self.api, self.appid = redis, api, appid

    def token(self, user):
        if not user:
            return {"login": True}
        value = self.redis.call("HGET", ACCESS_HASH, user)
        if value is not None:
            access, ms = java_split(value)[:2]
            if parse_long(ms) > now_ms():
                return {"token": access, "renewed": False}
        return self.renew(user)

    def renew(self, user):
        value = self.redis.call("HGET", REFRESH_HASH, user)
        refresh = java_split(value)[0] if value is not None else ""
        if not refresh:
            return {"login": True}
        query = urllib.parse.urlencode(
            {"appid": self.appid, "grant_type": "refresh_token", "refresh_token": refresh}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.api}/sns/oauth2/refresh_token?{query}", timeout=10) as reply:
            reply = json.load(reply)
        if "access_token" not in reply:
            return {"login": True, "errcode": reply.get("errcode")}
        self.store(user, reply)
        return {"token": reply["access_token"], "renewed": True}

    def store(self, user, reply):
        # A missing expires_in is "expires now".
        expires_in = reply.get("expires_in")
        ms = now_ms() if expires_in is None else now_ms() + (expires_in - MARGIN_SECS) * 1000
        self.redis.call("HSET", ACCESS_HASH, user, f"{reply['access_token']}#{ms}")
        self.redis.call("HSET", REFRESH_HASH, user, f"{reply['refresh_token']}#{ms}")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--redis", required=True)
    options.add_argument("--api", required=True)
    options.add_argument("--appid", required=True)
    options.add_argument("task", choices=["token", "login"])
    options.add_argument("user")
    options = options.parse_args()
    service = Service(Redis(options.redis), options.api, options.appid)
    if options.task == "login":
        service.store(options.user, json.load(sys.stdin))
    else:
        print(json.dumps(service.token(options.user)))


if __name__ == "__main__":
    main()
