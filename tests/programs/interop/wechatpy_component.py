"""wechatpy plays a third-party platform against a simulator, which plays WeChat.

    python wechatpy_component.py SIMULATOR_URL COMPONENT_APPID SECRET TOKEN AES_KEY ACCOUNT

The script receives pushes over HTTP and decrypts them with wechatpy. It prints one JSON object: what it has seen.
"""

import http.server
import json
import sys
import threading
import urllib.parse
import urllib.request

import requests
import xmltodict
from wechatpy import WeChatComponent
from wechatpy.exceptions import WeChatClientException

SIMULATOR, COMPONENT, SECRET, TOKEN, AES_KEY, ACCOUNT = sys.argv[1:]
HOSTS = ("https://api.weixin.qq.com", "https://mp.weixin.qq.com", "https://open.weixin.qq.com")


def here(url):
    for host in HOSTS:
        url = url.replace(host, SIMULATOR, 1)
    return url


class ToSimulator(requests.adapters.HTTPAdapter):
    """The addresses are written into wechatpy; this leads them elsewhere."""

    def send(self, request, **kwargs):
        request.url = here(request.url)
        return super().send(request, **kwargs)


def led(owner):
    owner._http.mount("https://", ToSimulator())
    return owner


component = led(WeChatComponent(COMPONENT, SECRET, TOKEN, AES_KEY))
seen = []


class Pushes(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        arguments = body, query["msg_signature"], query["timestamp"], query["nonce"]
        reply = "success"
        try:
            if url.path == "/messages":
                text = component.crypto.decrypt_message(*arguments)
                message = xmltodict.parse(text)["xml"]
                seen.append(message["MsgType"])
                answer = "<xml><Content><![CDATA[%s_callback]]></Content></xml>" % message["Content"]
                reply = component.crypto.encrypt_message(answer, query["nonce"], query["timestamp"])
            else:
                seen.append(component.parse_message(*arguments).type)
        except Exception as error:
            reply = repr(error)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(reply.encode())

    def log_message(self, *_):
        pass


def steer(**body):
    request = urllib.request.Request(SIMULATOR + "/_sim/platform", json.dumps(body).encode())
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def errcode_of(call):
    try:
        call()
    except WeChatClientException as error:
        return error.errcode
    raise AssertionError("the call has succeeded")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pushes)
threading.Thread(target=server.serve_forever, daemon=True).start()
origin = "http://127.0.0.1:%d" % server.server_port
steer(
    app_id=COMPONENT, secret=SECRET, token=TOKEN, aes_key=AES_KEY,
    push_url=origin + "/events", message_url=origin + "/messages",
)

# Without a ticket there is no component token.
assert errcode_of(lambda: component.access_token) == 61006
pushed = steer(push="ticket")["pushes"][0]
assert pushed["body"] == "success", pushed
assert component.component_verify_ticket.startswith("ticket@@@")
component_token = component.access_token

# The owner of the account follows a link of a page. The event comes first, and wechatpy exchanges its code.
link = here(component.get_pre_auth_url("https://h5.example.com/authorized"))
assert requests.get(link, allow_redirects=False).status_code == 200, "no link on a page"
page = {"Referer": "https://h5.example.com/authorize"}
back = requests.get(link + "&biz_appid=" + ACCOUNT, headers=page, allow_redirects=False)
code = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(back.headers["Location"]).query))["auth_code"]
assert errcode_of(lambda: component.query_auth(code)) == 61010

account = led(component.get_client_by_appid(ACCOUNT))
assert account.jsapi.get_ticket()["ticket"]
listed = component.get_authorizer_list()["list"]
assert [it["authorizer_appid"] for it in listed] == [ACCOUNT]
assert component.get_authorizer_info(ACCOUNT)["authorizer_info"]["user_name"].startswith("gh_")
renewed = component.refresh_authorizer_token(ACCOUNT, listed[0]["refresh_token"])
assert renewed["authorizer_access_token"]

# A user logs in on behalf of the account.
oauth = led(component.get_component_oauth(ACCOUNT))
link = here(oauth.get_authorize_url("https://h5.example.com/back", "snsapi_userinfo", "a state"))
back = requests.get(link.partition("#")[0], allow_redirects=False).headers["Location"]
back = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(back).query))
assert back["appid"] == ACCOUNT, back
login = oauth.fetch_access_token(back["code"])
assert oauth.get_user_info()["openid"] == login["openid"]
assert oauth.refresh_access_token(login["refresh_token"])["openid"] == login["openid"]

# A user's message, and the encrypted reply to it.
message = steer(push="release_test_text", account=ACCOUNT)["pushes"][0]["message"]
assert "TESTCOMPONENT_MSG_TYPE_TEXT_callback" in message, message

# A forged push is refused, and a component token that WeChat has ended is replaced.
forged = steer(push="ticket", wrong_signature=True)["pushes"][0]
assert "InvalidSignature" in forged["body"], forged
clock = urllib.request.Request(SIMULATOR + "/_sim/clock", b'{"advance_secs": 7300}')
urllib.request.urlopen(clock).read()
assert component.create_preauthcode()["pre_auth_code"]
assert component.access_token != component_token

# The account leaves.
refresh_token = listed[0]["refresh_token"]
assert steer(revoke=ACCOUNT)["pushes"][0]["body"] == "success"
assert errcode_of(lambda: component.refresh_authorizer_token(ACCOUNT, refresh_token)) == 61023

json.dump({"seen": seen, "openid": login["openid"]}, sys.stdout)
