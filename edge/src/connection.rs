//! One player's connection: handshake, reading, writing without waiting, and a good end.
//!
//! The reader is a task of its own that sleeps until the client says something. Writing is done by whoever has something,
//! at once or not at all: [`Conn::is_writable`] first finishes what the socket took only in part.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::{Sink, Stream};
use marchland_edge_core::session::{Refusal, SessionKey};
use marchland_edge_core::{OwnView, Session, Viewer};
use marchland_proto::client::{Refused, ServerMessage, server_message::Body};
use marchland_proto::net::{Transport, Tune};
use marchland_types::GroupId;
use marchland_types::limits::{CLIENT_MESSAGE_MAX_BYTES, RESUME_SECRET_BYTES};
use marchland_types::seam::{Clock, Entropy};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};

use crate::SUBPROTOCOL;
use crate::admission::{Admitted, admit};
use crate::player_stream::PlayerStream;
use crate::worker::Worker;

/// Allocated for every connection. The default of the library, 128 KiB, is a quarter of an edge's work and most of its memory.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// More than the largest frame: replies of 64 KiB, 64 enters, events.
const WRITE_BUFFER_MAX_BYTES: usize = 256 * 1024;
/// First of the close codes that applications may define; the refusal's code is added.
const CLOSE_CODE_BASE: u16 = 4000;
/// Time for a refused client to read why and close its end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Messages of a refused client that are read and thrown away, so that it can read why before its socket is reset.
const FAREWELL_MESSAGES_MAX: usize = 256;

/// A connection, shared by its reader and the loop that flushes frames.
pub(crate) type ConnRef<S> = Rc<RefCell<Conn<S>>>;

/// A player's connection.
pub(crate) struct Conn<S> {
    pub(crate) id: u64,
    ws: WebSocketStream<PlayerStream<S>>,
    pub(crate) session: Session,
    pub(crate) own: OwnView,
    pub(crate) viewer: Option<Viewer>,
    /// What it must be shown, until there is a viewer.
    pub(crate) pinned: Vec<u64>,
    /// Where its session is listed.
    pub(crate) place: Option<(GroupId, SessionKey)>,
    /// The region whose ticks its frames follow.
    pub(crate) home: Option<GroupId>,
    /// The socket has not taken all that was given to it.
    is_behind: bool,
    ending: Option<Ending>,
    reader: Option<Waker>,
    _admitted: Option<Admitted>,
}

enum Ending {
    /// Say why, then close.
    Refused(Refusal),
    /// Nobody is there to be told.
    Lost,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    /// Finishes what was written only in part. `false`: the socket takes nothing at the moment. An error is a lost socket.
    pub(crate) fn is_writable(&mut self) -> Result<bool, WsError> {
        if self.is_behind {
            // Nobody waits for the socket: the next tick looks again.
            let flushed = Pin::new(&mut self.ws).poll_flush(&mut Context::from_waker(Waker::noop()));
            self.is_behind = flushed.is_pending();
            if let Poll::Ready(Err(error)) = flushed {
                return Err(error);
            }
        }
        Ok(!self.is_behind)
    }

    /// Gives a message to the socket; what it does not take now is kept, and [`Conn::is_writable`] is false until it went.
    pub(crate) fn send(&mut self, bytes: Bytes) -> Result<(), WsError> {
        Pin::new(&mut self.ws).start_send(Message::Binary(bytes))?;
        self.is_behind = true;
        self.is_writable().map(|_| ())
    }

    pub(crate) fn send_message(&mut self, body: Body) -> Result<(), WsError> {
        self.send(ServerMessage { body: Some(body) }.encode_to_vec().into())
    }

    /// The reader says why and closes.
    pub(crate) fn end(&mut self, refusal: Refusal) {
        self.ending.get_or_insert(Ending::Refused(refusal));
        self.wake_reader();
    }

    /// The reader drops the connection.
    pub(crate) fn forget(&mut self) {
        self.ending.get_or_insert(Ending::Lost);
        self.wake_reader();
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        if let Some(ending) = self.ending.take() {
            return Poll::Ready(Heard::End(ending));
        }
        match Pin::new(&mut self.ws).poll_next(cx) {
            Poll::Ready(Some(message)) => Poll::Ready(Heard::Said(message)),
            Poll::Ready(None) => Poll::Ready(Heard::End(Ending::Lost)),
            Poll::Pending => {
                if !self.reader.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    self.reader = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

enum Heard {
    Said(Result<Message, WsError>),
    End(Ending),
}

fn ws_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // Every message is written at once: there is one a tick.
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_MAX_BYTES)
        .max_message_size(Some(CLIENT_MESSAGE_MAX_BYTES))
        .max_frame_size(Some(CLIENT_MESSAGE_MAX_BYTES))
}

/// Agrees to the subprotocol, or refuses with 400.
#[allow(clippy::result_large_err)]
fn check_subprotocol(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let ours = offered.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).any(|v| v.trim() == SUBPROTOCOL);
    if ours {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(Some(format!("subprotocol {SUBPROTOCOL} expected")));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    Err(refusal)
}

/// Brings an accepted socket through its handshakes and starts its reader. `handshake` is held until then; by a client that
/// there is no room for, until it has been told.
pub(crate) async fn welcome<T: Transport, C: Clock, E: Entropy>(
    worker: Rc<Worker<T, C, E>>,
    stream: T::Stream,
    from: SocketAddr,
    handshake: OwnedSemaphorePermit,
) {
    let shared = &worker.shared;
    let admitted = admit(shared, worker.number, from.ip());
    let work = async {
        stream.tune_for_player()?;
        let stream = match &shared.options.tls {
            None => PlayerStream::Plain(stream),
            Some(tls) => PlayerStream::Tls(Box::new(tls.accept(stream).await?.into())),
        };
        tokio_tungstenite::accept_hdr_async_with_config(stream, check_subprotocol, Some(ws_config()))
            .await
            .map_err(io::Error::other)
    };
    let ws = match tokio::time::timeout(shared.options.limits.handshake_timeout, Box::pin(work)).await {
        Ok(Ok(ws)) => ws,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "player: handshake failed"),
        Err(_) => return tracing::debug!(%from, "player: handshake took too long"),
    };
    let mut secret = [0; RESUME_SECRET_BYTES];
    worker.entropy.fill(&mut secret);
    let now = worker.clock.monotonic();
    let session = Session::new(now, &shared.options.session, secret, worker.entropy.next_u64());
    let is_full = admitted.is_none();
    let conn = Rc::new(RefCell::new(Conn {
        id: worker.next_id(),
        ws,
        session,
        own: OwnView::default(),
        viewer: None,
        pinned: Vec::new(),
        place: None,
        home: None,
        is_behind: false,
        ending: None,
        reader: None,
        _admitted: admitted,
    }));
    worker.shared.counters.accepted();
    worker.enter(&conn);
    if is_full {
        worker.drive(&conn, |session, _, _, out| session.handle_full(out));
        read(worker, conn, Some(handshake)).await;
    } else {
        // A task of its own: this one's memory, sized for the handshakes, is given back.
        tokio::task::spawn_local(read(worker.clone(), conn, None));
    }
}

async fn read<T: Transport, C: Clock, E: Entropy>(
    worker: Rc<Worker<T, C, E>>,
    conn: ConnRef<T::Stream>,
    _handshake: Option<OwnedSemaphorePermit>,
) {
    loop {
        let heard = poll_fn(|cx| conn.borrow_mut().poll_heard(cx)).await;
        match heard {
            Heard::Said(Ok(Message::Binary(bytes))) => {
                worker.shared.counters.message();
                worker.drive(&conn, |session, now, config, out| session.handle_message(now, config, bytes, out));
            }
            Heard::Said(Ok(Message::Ping(_) | Message::Pong(_))) => {
                worker.drive(&conn, |session, now, _, out| session.handle_control(now, out));
            }
            Heard::Said(Ok(Message::Text(_) | Message::Frame(_))) => {
                worker.drive(&conn, |session, _, _, out| session.handle_malformed("text message", out));
            }
            Heard::Said(Err(WsError::Capacity(CapacityError::MessageTooLong { .. }))) => {
                worker.drive(&conn, |session, _, _, out| session.handle_too_large(out));
            }
            Heard::Said(Err(error @ (WsError::Protocol(_) | WsError::Utf8(_) | WsError::Capacity(_)))) => {
                // A socket that ends without a closing handshake is a protocol error here, but nothing that the client said.
                if is_just_gone(&error) {
                    worker.drive(&conn, |session, _, _, out| session.handle_socket_lost(out));
                } else {
                    worker.drive(&conn, |session, _, _, out| session.handle_malformed(&error.to_string(), out));
                }
            }
            Heard::Said(Ok(Message::Close(_)) | Err(_)) => {
                worker.drive(&conn, |session, _, _, out| session.handle_socket_lost(out));
            }
            Heard::End(Ending::Refused(refusal)) => {
                worker.shared.counters.refused(refusal.code);
                // In time or not: the connection is dropped either way.
                let _ = tokio::time::timeout(FAREWELL, say_farewell(&conn, refusal)).await;
                break;
            }
            Heard::End(Ending::Lost) => {
                // Does nothing if the loss was what ended it.
                worker.drive(&conn, |session, _, _, out| session.handle_socket_lost(out));
                break;
            }
        }
    }
    worker.left();
}

fn is_just_gone(error: &WsError) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    matches!(error, WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake))
}

/// Sends the refusal and the close frame, then waits until the client has closed too: a socket that is closed with unread data
/// in it is reset, and the client would never read why.
async fn say_farewell<S: AsyncRead + AsyncWrite + Unpin>(conn: &ConnRef<S>, refusal: Refusal) -> Result<(), WsError> {
    let close = CloseFrame {
        code: CloseCode::from(CLOSE_CODE_BASE + refusal.code as u16),
        reason: "refused; the message before says why".into(),
    };
    let refused = Body::Refused(Refused {
        code: refusal.code as u32,
        reason: refusal.reason,
        retry_after_ms: refusal.retry_after_ms,
        other_edge: refusal.other_edge,
    });
    let flush = || poll_fn(|cx| Pin::new(&mut conn.borrow_mut().ws).poll_flush(cx));
    flush().await?;
    conn.borrow_mut().send_message(refused)?;
    flush().await?;
    Pin::new(&mut conn.borrow_mut().ws).start_send(Message::Close(Some(close)))?;
    flush().await?;
    for _ in 0..FAREWELL_MESSAGES_MAX {
        let next = poll_fn(|cx| Pin::new(&mut conn.borrow_mut().ws).poll_next(cx)).await;
        if !matches!(next, Some(Ok(_))) {
            break;
        }
    }
    Ok(())
}
