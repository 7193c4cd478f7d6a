"""A second implementation of the account's token: a plain script that asks a token center.

    python3 center_client.py CENTER_URL BEARER SIMULATOR_URL

For each line on stdin the script makes one call with its token, as a worker of an old service does.
It keeps the token until the `expires_in` of the center ends. If WeChat rejects the token, the script
reports it and makes the call once more. It prints the outcome of each call. It needs only Python.
"""

import json
import sys
import urllib.request

CENTER, BEARER, SIMULATOR = sys.argv[1:]


def center(path, body=None):
    request = urllib.request.Request(CENTER + path, body and json.dumps(body).encode())
    request.add_header("Authorization", "Bearer " + BEARER)
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def call(token):
    url = SIMULATOR + "/cgi-bin/get_api_domain_ip?access_token=" + token
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply).get("errcode", 0)


for line in sys.stdin:
    # "fresh" asks the center again, as after a minute. "kept" uses the token that it has.
    if line.strip() == "fresh":
        token = center("/access_token")["access_token"]
    errcode = call(token)
    rejected = 0
    if errcode in (40001, 40014, 42001):
        rejected = errcode
        token = center("/access_token/invalid", {"access_token": token})["access_token"]
        errcode = call(token)
    print(json.dumps({"errcode": errcode, "rejected": rejected}), flush=True)
