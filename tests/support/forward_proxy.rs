//! A forward proxy for tests: HTTP (`CONNECT` and absolute URLs) or SOCKS5, with or without
//! credentials.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// The protocol that the proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http,
    Socks5,
}

/// A proxy that runs until it is dropped.
pub struct ForwardProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    speaks: Speaks,
    credentials: Option<(String, String)>,
    /// Destination of all connections. `None`: each connection goes to the requested host.
    upstream: Option<SocketAddr>,
    targets: Mutex<Vec<String>>,
    refused: Mutex<usize>,
}

impl ForwardProxy {
    /// Starts a proxy that requires these credentials, if there are any. With an `upstream`, all
    /// connections go there.
    pub async fn start(
        speaks: Speaks,
        credentials: Option<(&str, &str)>,
        upstream: Option<SocketAddr>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            speaks,
            credentials: credentials.map(|(user, pass)| (user.to_owned(), pass.to_owned())),
            upstream,
            targets: Mutex::default(),
            refused: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let _ = match shared.speaks {
                        Speaks::Http => shared.http(stream).await,
                        Speaks::Socks5 => shared.socks5(stream).await,
                    };
                });
            }
        });
        Self {
            address,
            shared,
            task: task.abort_handle(),
        }
    }

    /// Returns the host and port of each requested connection.
    pub fn targets(&self) -> Vec<String> {
        self.shared.targets.lock().unwrap().clone()
    }

    /// Returns the number of connections without the right credentials.
    pub fn refused(&self) -> usize {
        *self.shared.refused.lock().unwrap()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn connect(&self, target: &str) -> io::Result<TcpStream> {
        self.targets.lock().unwrap().push(target.to_owned());
        match self.upstream {
            Some(upstream) => TcpStream::connect(upstream).await,
            None => TcpStream::connect(target).await,
        }
    }

    async fn http(&self, mut client: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let wanted = self.credentials.as_ref().map(|(user, pass)| {
            let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{pass}"));
            format!("basic {both}").to_lowercase()
        });
        let offered = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_it = name.eq_ignore_ascii_case("proxy-authorization");
            is_it.then(|| value.trim().to_lowercase())
        });
        if wanted.is_some() && wanted != offered {
            *self.refused.lock().unwrap() += 1;
            let answer = "HTTP/1.1 407 Proxy Authentication Required\r\n\
                          Proxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\
                          Connection: close\r\n\r\n";
            return client.write_all(answer.as_bytes()).await;
        }
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        if method == "CONNECT" {
            let mut server = self.connect(target).await?;
            client
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await?;
            copy_bidirectional(&mut client, &mut server).await?;
            return Ok(());
        }
        let rest = target.strip_prefix("http://").expect("an absolute address");
        let authority = rest.split(['/', '?']).next().unwrap();
        let mut server = self.connect(authority).await?;
        for line in head.split_inclusive("\r\n") {
            if !line.to_lowercase().starts_with("proxy-") {
                server.write_all(line.as_bytes()).await?;
            }
        }
        copy_bidirectional(&mut client, &mut server).await?;
        Ok(())
    }

    async fn socks5(&self, mut client: TcpStream) -> io::Result<()> {
        assert_eq!(client.read_u8().await?, 5, "SOCKS5");
        let methods = client.read_u8().await?;
        let mut offered = vec![0; usize::from(methods)];
        client.read_exact(&mut offered).await?;
        let method = if self.credentials.is_some() { 2 } else { 0 };
        if !offered.contains(&method) {
            *self.refused.lock().unwrap() += 1;
            return client.write_all(&[5, 0xff]).await;
        }
        client.write_all(&[5, method]).await?;
        if let Some((user, pass)) = &self.credentials {
            client.read_u8().await?;
            let mut both = [String::new(), String::new()];
            for text in &mut both {
                let mut bytes = vec![0; usize::from(client.read_u8().await?)];
                client.read_exact(&mut bytes).await?;
                *text = String::from_utf8(bytes).unwrap();
            }
            let right = both == [user.clone(), pass.clone()];
            client.write_all(&[1, u8::from(!right)]).await?;
            if !right {
                *self.refused.lock().unwrap() += 1;
                return Ok(());
            }
        }
        let mut request = [0; 4];
        client.read_exact(&mut request).await?;
        assert_eq!(request[..2], [5, 1], "CONNECT");
        let host = match request[3] {
            1 => {
                let mut bytes = [0; 4];
                client.read_exact(&mut bytes).await?;
                std::net::Ipv4Addr::from(bytes).to_string()
            }
            3 => {
                let mut bytes = vec![0; usize::from(client.read_u8().await?)];
                client.read_exact(&mut bytes).await?;
                String::from_utf8(bytes).unwrap()
            }
            _ => {
                let mut bytes = [0; 16];
                client.read_exact(&mut bytes).await?;
                format!("[{}]", std::net::Ipv6Addr::from(bytes))
            }
        };
        let port = client.read_u16().await?;
        let mut server = self.connect(&format!("{host}:{port}")).await?;
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        copy_bidirectional(&mut client, &mut server).await?;
        Ok(())
    }
}
