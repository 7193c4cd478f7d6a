//! A proxy in front of Redis that behaves like a real product: older than RESP3, or strict about
//! scripts. Commands that the product does not treat specially reach the server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// The commands that the proxy treats specially. All other commands reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// `HELLO` gets this error reply, which is given without its leading `-`.
    Says(&'static str),
    /// The proxy closes the connection at the commands `HELLO` and `CLIENT`.
    HangsUp,
    /// The proxy closes the connection at any command.
    HangsUpAtEverything,
    /// A client's `PUBLISH` is passed on as `XPUBLSH`, the name under which the server knows the
    /// command. A script cannot call `PUBLISH` on that server.
    RenamesPublish,
    /// A script is rejected unless each of its calls names a command and a key, such as `KEYS[1]`,
    /// literally.
    ChecksScripts,
}

pub struct OldProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: AbortOnDropHandle<()>,
}

struct Shared {
    server: Mutex<String>,
    manner: Manner,
    /// Names of all received commands in capitals, and `refused` for each rejected script.
    received: Mutex<Vec<String>>,
}

impl OldProxy {
    pub async fn start(server: &str, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server: Mutex::new(server.to_owned()),
            manner,
            received: Mutex::default(),
        });
        let for_clients = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&for_clients);
                tokio::spawn(async move { shared.serve(client).await });
            }
        });
        Self {
            address,
            shared,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes the commands of new connections on to another server, `HOST:PORT`.
    pub fn stand_before(&self, server: &str) {
        *self.shared.server.lock().unwrap() = server.to_owned();
    }

    /// Returns how many commands of this name the proxy has received. The name is in capitals.
    pub fn received(&self, name: &str) -> usize {
        let received = self.shared.received.lock().unwrap();
        received.iter().filter(|command| *command == name).count()
    }
}

impl Shared {
    async fn serve(&self, client: TcpStream) {
        let server = self.server.lock().unwrap().clone();
        let Ok(server) = TcpStream::connect(&server).await else {
            return;
        };
        let (from_client, mut to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        let (mut from_client, mut from_server) =
            (BufReader::new(from_client), BufReader::new(from_server));
        loop {
            let Some(mut command) = message(&mut from_client).await else {
                return;
            };
            let name = name_of(&command);
            self.received.lock().unwrap().push(name.clone());
            let greets = matches!(&*name, "HELLO" | "CLIENT");
            match self.manner {
                Manner::HangsUpAtEverything => return,
                Manner::HangsUp if greets => return,
                Manner::Says(words) if name == "HELLO" => {
                    let reply = format!("-{words}\r\n");
                    if to_client.write_all(reply.as_bytes()).await.is_err() {
                        return;
                    }
                    continue;
                }
                Manner::RenamesPublish if name == "PUBLISH" => rename_publish(&mut command),
                Manner::ChecksScripts if name == "EVAL" && !is_literal(&command) => {
                    self.received.lock().unwrap().push("refused".to_owned());
                    let reply = b"-ERR bad lua script for redis cluster, all the keys that the \
                                  script uses should be passed using the KEYS array\r\n";
                    if to_client.write_all(reply).await.is_err() {
                        return;
                    }
                    continue;
                }
                Manner::Says(_)
                | Manner::HangsUp
                | Manner::RenamesPublish
                | Manner::ChecksScripts => {}
            }
            if to_server.write_all(&command).await.is_err() {
                return;
            }
            if name == "SUBSCRIBE" {
                return pass_on(from_client, to_server, from_server, to_client).await;
            }
            let Some(reply) = message(&mut from_server).await else {
                return;
            };
            if to_client.write_all(&reply).await.is_err() {
                return;
            }
        }
    }
}

/// Passes bytes on in both directions until one side closes the connection.
async fn pass_on(
    mut from_client: BufReader<OwnedReadHalf>,
    mut to_server: OwnedWriteHalf,
    mut from_server: BufReader<OwnedReadHalf>,
    mut to_client: OwnedWriteHalf,
) {
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

/// Reads the next message of Redis' protocol, with all its parts, and returns its bytes. Returns
/// `None` at the end of the connection.
async fn message(from: &mut BufReader<OwnedReadHalf>) -> Option<Vec<u8>> {
    let (mut whole, mut parts) = (Vec::new(), 1_usize);
    while parts > 0 {
        parts -= 1;
        let start = whole.len();
        if from.read_until(b'\n', &mut whole).await.ok()? == 0 {
            return None;
        }
        let line = whole[start..].to_vec();
        let count: i64 = String::from_utf8_lossy(line.get(1..)?)
            .trim()
            .parse()
            .unwrap_or(0);
        match (line[0], usize::try_from(count)) {
            (b'*' | b'~' | b'>', Ok(more)) => parts += more,
            (b'%', Ok(pairs)) => parts += pairs * 2,
            (b'$' | b'=', Ok(length)) => {
                let start = whole.len();
                whole.resize(start + length + 2, 0);
                from.read_exact(&mut whole[start..]).await.ok()?;
            }
            _ => {}
        }
    }
    Some(whole)
}

fn name_of(command: &[u8]) -> String {
    let text = String::from_utf8_lossy(command);
    text.lines().nth(2).unwrap_or_default().to_uppercase()
}

fn rename_publish(command: &mut [u8]) {
    let at = command.iter().position(|byte| *byte == b'$').unwrap();
    let name = &mut command[at + 4..at + 11];
    assert_eq!(name.to_ascii_uppercase(), b"PUBLISH");
    name.copy_from_slice(b"XPUBLSH");
}

/// Returns `true` if each call in the script names its command and its key literally.
fn is_literal(command: &[u8]) -> bool {
    let text = String::from_utf8_lossy(command);
    text.split("call(").skip(1).all(|call| {
        let mut words = call.split([',', ')']);
        let (command, key) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let number = key.trim().strip_prefix("KEYS[");
        let number = number.and_then(|rest| rest.strip_suffix(']'));
        command.starts_with('\'') && number.is_some_and(|number| number.parse::<u8>().is_ok())
    })
}
