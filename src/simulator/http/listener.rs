//! Connections that a handler can break, and that end when the simulator does.

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

/// How long to wait before accepting again when the system has no more file descriptors.
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
                    // A small reply would otherwise wait for the acknowledgement of the last.
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

/// A TCP connection that fails once it is broken or the simulator has stopped.
pub(super) struct BreakableConnection {
    stream: TcpStream,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    reset_requested: Arc<AtomicBool>,
}

impl BreakableConnection {
    /// An error if there is to be no more traffic. The lingering time of zero makes the system
    /// send RST, and not FIN, when the connection is dropped.
    fn check_open(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let stopped = self.stopped.as_mut().poll(cx).is_ready();
        if stopped || self.reset_requested.load(Ordering::Acquire) {
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

/// Who called, and a handle to break their connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    ip: IpAddr,
    reset_requested: Arc<AtomicBool>,
}

impl Peer {
    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Breaks the connection. The answer is never written: it only wakes the writer, which then
    /// finds the connection broken.
    pub(super) fn reset(&self) -> Response {
        self.reset_requested.store(true, Ordering::Release);
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
