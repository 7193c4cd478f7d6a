"""wechatpy lives through its whole token and ticket life against a simulator.

    python wechatpy_client.py SIMULATOR_URL APPID SECRET REDIS_URL

Prints one JSON object: what it holds at the end, and a signature that it made.
"""

import json
import sys
import urllib.request

import redis
import requests
from wechatpy import WeChatClient
from wechatpy.session.redisstorage import RedisStorage

WECHAT = "https://api.weixin.qq.com"
PAGE = "https://h5.example.com/page?a=1&b=%2B"


class ToSimulator(requests.adapters.HTTPAdapter):
    """The addresses are written into wechatpy; this leads them elsewhere."""

    def send(self, request, **kwargs):
        request.url = request.url.replace(WECHAT, SIMULATOR, 1)
        return super().send(request, **kwargs)


def control(route, body):
    request = urllib.request.Request(SIMULATOR + "/_sim/" + route, json.dumps(body).encode())
    urllib.request.urlopen(request).read()


def client():
    session = RedisStorage(redis.Redis.from_url(REDIS_URL))
    made = WeChatClient(APPID, SECRET, session=session)
    made._http.mount(WECHAT, ToSimulator())
    return made


SIMULATOR, APPID, SECRET, REDIS_URL = sys.argv[1:]
control("users", {"openid": "oAlice", "nickname": "Alice"})

wechat = client()
first = wechat.access_token
assert wechat.get("get_api_domain_ip")["ip_list"]
assert wechat.user.get("oAlice")["subscribe"] == 1
sent = wechat.message.send_template("oAlice", "TEMPLATE", {"first": {"value": "hello"}})
assert sent["errcode"] == 0, sent

ticket = wechat.jsapi.get_jsapi_ticket()
assert wechat.jsapi.get_jsapi_ticket() == ticket
signature = wechat.jsapi.get_jsapi_signature("nonce", ticket, 1414587457, PAGE)

# The token expires while wechatpy still has it: 42001, a fetch, and the call once more.
control("clock", {"advance_secs": 7300})
assert wechat.get("get_api_domain_ip")["ip_list"]
second = wechat.access_token
assert second != first

# Another process fetches, and the overlap of five minutes passes: 40001, and the same.
requests.get(
    SIMULATOR + "/cgi-bin/token",
    params={"grant_type": "client_credential", "appid": APPID, "secret": SECRET},
).raise_for_status()
assert wechat.get("get_api_domain_ip")["ip_list"], "the overlap"
control("clock", {"advance_secs": 301})
assert wechat.user.get("oAlice")["openid"] == "oAlice"
third = wechat.access_token
assert third not in (first, second)

# A second process of wechatpy finds the token in Redis.
assert client().access_token == third

json.dump(
    {"token": third, "ticket": ticket, "page": PAGE, "signature": signature}, sys.stdout
)
