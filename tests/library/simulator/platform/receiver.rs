//! An application that receives pushes, and decrypts them without code of the crate.

// A failed `unwrap` in these helpers fails the test that calls them.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, Uri},
};
use base64::{
    Engine as _,
    engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD},
};
use sha1::{Digest, Sha1};

/// A push as it came.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) path: String,
    pub(super) params: HashMap<String, String>,
    pub(super) body: String,
}

/// A server that keeps all pushes, and replies with the same text to each.
#[derive(Debug, Clone)]
pub(super) struct Receiver {
    pub(super) url: String,
    state: Arc<Mutex<(Vec<Received>, u16, String)>>,
}

impl Receiver {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = (Vec::new(), 200, "success".to_owned());
        let receiver = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::new(Mutex::new(state)),
        };
        let app = Router::new().fallback(receive).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        receiver
    }

    pub(super) fn reply_with(&self, status: u16, body: &str) {
        let mut state = self.state.lock().unwrap();
        (state.1, state.2) = (status, body.to_owned());
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().0.clone()
    }

    /// Waits until this many pushes have come.
    pub(super) async fn wait_for(&self, count: usize) -> Vec<Received> {
        for _ in 0..500 {
            if self.received().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let received = self.received();
        assert_eq!(received.len(), count, "{received:?}");
        received
    }
}

async fn receive(
    State(receiver): State<Receiver>,
    uri: Uri,
    Query(params): Query<HashMap<String, String>>,
    body: String,
) -> (StatusCode, String) {
    let mut state = receiver.state.lock().unwrap();
    state.0.push(Received {
        path: uri.path().to_owned(),
        params,
        body,
    });
    (StatusCode::from_u16(state.1).unwrap(), state.2.clone())
}

impl Received {
    /// Returns `true` if `msg_signature` is right under this token.
    pub(super) fn is_signed_with(&self, token: &str) -> bool {
        let encrypted = text_of(&self.body, "Encrypt");
        let [timestamp, nonce] = ["timestamp", "nonce"].map(|name| self.params[name].as_str());
        self.params["msg_signature"] == sha1_of(&mut [token, timestamp, nonce, &encrypted])
    }

    /// Decrypts the message, and returns it with the AppID after it.
    pub(super) fn open(&self, key: &str) -> (String, String) {
        decrypted(key, &text_of(&self.body, "Encrypt"))
    }
}

pub(super) fn sha1_of(parts: &mut [&str]) -> String {
    parts.sort_unstable();
    let digest = Sha1::digest(parts.concat());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_and_iv(key: &str) -> ([u8; 32], [u8; 16]) {
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let decoder = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let key: [u8; 32] = decoder
        .decode(format!("{key}="))
        .unwrap()
        .try_into()
        .unwrap();
    (key, key[..16].try_into().unwrap())
}

fn decrypted(key: &str, encrypted: &str) -> (String, String) {
    let (key, iv) = key_and_iv(key);
    let mut bytes = STANDARD.decode(encrypted).unwrap();
    let mut cipher = cbc::Decryptor::<aes::Aes256>::new(&key.into(), &iv.into());
    for block in bytes.chunks_exact_mut(16) {
        cipher.decrypt_block(block.try_into().unwrap());
    }
    let plain = bytes;
    let padding = usize::from(*plain.last().unwrap());
    assert!((1..=32).contains(&padding) && plain.len().is_multiple_of(32));
    let content = &plain[20..plain.len() - padding];
    let length = u32::from_be_bytes(plain[16..20].try_into().unwrap());
    let (message, app_id) = content.split_at(usize::try_from(length).unwrap());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(message), text(app_id))
}

/// Returns the text of an element in CDATA.
pub(super) fn text_of(xml: &str, name: &str) -> String {
    let start = format!("<{name}><![CDATA[");
    let (_, after) = xml
        .split_once(&start)
        .unwrap_or_else(|| panic!("{name}: {xml}"));
    after.split_once("]]>").unwrap().0.to_owned()
}
