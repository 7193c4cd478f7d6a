// co-wechat-api lives through its whole token and ticket life against a simulator.
//
//     node co_wechat_api.js SIMULATOR_URL APPID SECRET
//
// Prints one JSON object: what it holds at the end, and a signature that it made.

'use strict';

const assert = require('assert');
const API = require('co-wechat-api');

const [simulator, appid, secret] = process.argv.slice(2);
const page = 'https://h5.example.com/page?a=1&b=%2B';

async function control(route, body) {
  const reply = await fetch(`${simulator}/_sim/${route}`, {
    method: 'POST',
    body: JSON.stringify(body),
  });
  assert(reply.ok, await reply.text());
}

async function main() {
  await control('users', { openid: 'oAlice', nickname: 'Alice' });
  const api = new API(appid, secret);
  api.prefix = `${simulator}/cgi-bin/`;

  const first = (await api.ensureAccessToken()).accessToken;
  assert((await api.getIp()).ip_list.length);
  assert.strictEqual((await api.getUser('oAlice')).subscribe, 1);
  const sent = await api.sendTemplate('oAlice', 'TEMPLATE', page, '#000000', {});
  assert.strictEqual(sent.errcode, 0);

  const config = await api.getJsConfig({ url: page, jsApiList: [] });
  const ticket = (await api.ensureTicket()).ticket;

  // The token expires while the client still has it: WeChat rejects it, the client fetches another and repeats the call.
  await control('clock', { advance_secs: 7300 });
  assert((await api.getIp()).ip_list.length);
  const second = (await api.ensureAccessToken()).accessToken;
  assert.notStrictEqual(second, first);

  console.log(JSON.stringify({
    token: second,
    ticket,
    page,
    appId: config.appId,
    nonce: config.nonceStr,
    timestamp: Number(config.timestamp),
    signature: config.signature,
  }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
