//! TCP connections that a handler can reset, and that end when the simulator stops.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    response::{IntoResponse, Response},
    serve::IncomingStream,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Delay after a failed attempt to accept a connection: 100 ms. The delay prevents a busy loop
/// while the system has no more file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct BreakableListener {
    inner: TcpListener,
    stopped: CancellationToken,
}

impl BreakableListener {
    pub(super) fn new(inner: TcpListener, stopped: CancellationToken) -> Self {
        Self { inner, stopped }
    }
}

impl axum::serve::Listener for BreakableListener {
    type Io = BreakableConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BreakableConnection, SocketAddr) {
        loop {
            match self.inner.accept().await {
                Ok((stream, address)) => {
                    // Without this option, a small reply waits for the acknowledgement of the reply
                    // before it.
                    let _ = stream.set_nodelay(true);
                    let connection = BreakableConnection {
                        stream,
                        stopped: Box::pin(self.stopped.clone().cancelled_owned()),
                        reset_requested: Arc::new(AtomicBool::new(false)),
                    };
                    return (connection, address);
                }
                Err(_) => tokio::time::sleep(ACCEPT_RETRY_DELAY).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A TCP connection that fails after a reset was requested or the simulator has stopped.
pub(super) struct BreakableConnection {
    stream: TcpStream,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    reset_requested: Arc<AtomicBool>,
}

impl BreakableConnection {
    /// Returns an error if a reset was requested or the simulator has stopped. A linger time of
    /// zero makes the system send RST instead of FIN when the connection is dropped.
    fn check_open(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // The future is polled at every read and write, so that a stop wakes a connection that
        // waits.
        let stopped = self.stopped.as_mut().poll(cx).is_ready();
        if stopped || self.reset_requested.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for BreakableConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for BreakableConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The IP address of a client, with a flag that resets its connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    ip: IpAddr,
    reset_requested: Arc<AtomicBool>,
}

impl Peer {
    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Requests the reset of the connection. The handler must return the empty response of this
    /// function: when the connection writes it, the reset happens instead.
    pub(super) fn reset(&self) -> Response {
        // The flag carries no other data, so no ordering is needed. The task of the connection sets
        // it here and reads it when it writes the response.
        self.reset_requested.store(true, Ordering::Relaxed);
        ().into_response()
    }
}

impl Connected<IncomingStream<'_, BreakableListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, BreakableListener>) -> Self {
        Self {
            ip: stream.remote_addr().ip(),
            reset_requested: Arc::clone(&stream.io().reset_requested),
        }
    }
}
