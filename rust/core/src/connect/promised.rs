//! The number of the backend that the server promised at log-in, which the driver keeps to itself.
//!
//! It goes into each request to cancel; so one is written, to nobody, and read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// Length and code of a request for TLS, and the code of one to cancel.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const CANCEL_CODE: i32 = 80_877_102;

/// The backend that a request to cancel would name; `None` where the server numbers none.
pub(super) async fn promised(token: &CancelToken) -> Option<i32> {
    let (ours, mut theirs) = duplex(64);
    let writing = token.cancel_query_raw(ours, Plain);
    let reading = async {
        let mut message = [0; 16];
        theirs.read_exact(&mut message[..8]).await.ok()?;
        if message[..8] == TLS_REQUEST {
            theirs.write_all(b"S").await.ok()?;
            theirs.read_exact(&mut message[..8]).await.ok()?;
        }
        theirs.read_exact(&mut message[8..]).await.ok()?;
        let number = |at: usize| {
            let bytes = message[at..at + 4].try_into().ok()?;
            Some(i32::from_be_bytes(bytes))
        };
        (number(4)? == CANCEL_CODE).then(|| number(8)).flatten()
    };
    let (_, promised) = tokio::join!(writing, reading);
    promised.filter(|pid| *pid != 0)
}

/// "TLS" that changes nothing.
struct Plain;

impl TlsConnect<DuplexStream> for Plain {
    type Stream = Passed;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Passed>>;

    fn connect(self, stream: DuplexStream) -> Self::Future {
        std::future::ready(Ok(Passed(stream)))
    }
}

struct Passed(DuplexStream);

impl TlsStream for Passed {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Passed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Passed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
